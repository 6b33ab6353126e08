"""How a token knows where it stands: a closed union.

A position module says two things of the positions of a `Span`: what is added to the tokens'
vectors (it is an additive embedding) and how queries and keys are rotated (`rotation`); either may
be nothing. Its
`limit` is the number of positions it can name, None where that is unbounded.
"""

from typing import Annotated

from coterie.foundation.settings import union
from coterie.model.position.interface import (
    LearnedPosition,
    NoPosition,
    PositionPart,
    Rotation,
    Span,
)
from coterie.model.position.rotary import RotaryPosition

Position = Annotated[
    RotaryPosition | LearnedPosition | NoPosition,
    union(RotaryPosition, LearnedPosition, NoPosition),
]
