"""How rotary positions reach beyond the context a model was trained on: a closed union.

A member says how fast each pair of channels turns (`frequencies`), by what cosines and sines are
multiplied (`turn_scale`) and by what every product of a query and a key is (`logit_scale`). Factors
are those of lengths: the context wished for over the original one.
"""

from typing import Annotated

from coterie.foundation.settings import union
from coterie.model.position.scaling.dynamic import DynamicScaling
from coterie.model.position.scaling.interface import ScalingSettings
from coterie.model.position.scaling.linear import LinearScaling
from coterie.model.position.scaling.llama3 import Llama3Scaling
from coterie.model.position.scaling.none import NoScaling
from coterie.model.position.scaling.ntk import NTKScaling
from coterie.model.position.scaling.yarn import YarnScaling

Scaling = Annotated[
    NoScaling | LinearScaling | NTKScaling | DynamicScaling | YarnScaling | Llama3Scaling,
    union(NoScaling, LinearScaling, NTKScaling, DynamicScaling, YarnScaling, Llama3Scaling),
]
