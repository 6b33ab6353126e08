"""Bodies of feed-forward layers: a closed union, one file per function.

A body serves alone (a dense layer, a shared expert) or packed, many experts of one shape with
their weights [experts, out, in]. It says its mathematics once, in `run`, over whatever stands for a
linear map: torch's own for one expert, a grouped or batched product for many at once.
"""

from typing import Annotated

from coterie.foundation.settings import union
from coterie.model.experts.bodies.geglu import GeGLU
from coterie.model.experts.bodies.gelu import GELU
from coterie.model.experts.bodies.interface import BodyPart, Linear, Weights
from coterie.model.experts.bodies.squared_relu import SquaredReLU
from coterie.model.experts.bodies.swiglu import SwiGLU

Body = Annotated[SwiGLU | GeGLU | GELU | SquaredReLU, union(SwiGLU, GeGLU, GELU, SquaredReLU)]

__all__ = [
    "GELU",
    "Body",
    "BodyPart",
    "GeGLU",
    "Linear",
    "SquaredReLU",
    "SwiGLU",
    "Weights",
]
