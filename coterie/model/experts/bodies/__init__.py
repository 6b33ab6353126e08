"""Bodies of feed-forward layers: a closed union, one file per function.

A body serves alone (a dense layer, a shared expert) or packed, many experts of one shape with
their weights [experts, out, in]. It says its mathematics once, in `run`, over whatever stands for a
linear map: torch's own for one expert, a grouped or batched product for many at once. A routed
expert may also be `null`, without weights.
"""

from typing import Annotated

from coterie.foundation.settings import union
from coterie.model.experts.bodies.deep import Deep
from coterie.model.experts.bodies.geglu import GeGLU
from coterie.model.experts.bodies.gelu import GELU
from coterie.model.experts.bodies.hybrid import Hybrid
from coterie.model.experts.bodies.interface import BodyPart, Linear, Weights
from coterie.model.experts.bodies.null import Null
from coterie.model.experts.bodies.squared_relu import SquaredReLU
from coterie.model.experts.bodies.swiglu import SwiGLU
from coterie.model.experts.bodies.wide import Wide

Body = Annotated[
    SwiGLU | GeGLU | GELU | SquaredReLU | Deep | Wide | Hybrid,
    union(SwiGLU, GeGLU, GELU, SquaredReLU, Deep, Wide, Hybrid),
]
ExpertBody = Annotated[
    SwiGLU | GeGLU | GELU | SquaredReLU | Deep | Wide | Hybrid | Null,
    union(SwiGLU, GeGLU, GELU, SquaredReLU, Deep, Wide, Hybrid, Null),
]

__all__ = [
    "GELU",
    "Body",
    "BodyPart",
    "Deep",
    "ExpertBody",
    "GeGLU",
    "Hybrid",
    "Linear",
    "Null",
    "SquaredReLU",
    "SwiGLU",
    "Weights",
    "Wide",
]
