"""Sparse patterns: which earlier positions a token sees, a closed union, one file per pattern.

Each is causal and says nothing of the text's length, so that a text read piece by piece is seen as
one read at once.
"""

from typing import Annotated

from coterie.foundation.settings import union
from coterie.model.attention.sparse.blocks import BlockPattern
from coterie.model.attention.sparse.dilated import DilatedPattern
from coterie.model.attention.sparse.strided import StridedPattern

Sparse = Annotated[
    StridedPattern | DilatedPattern | BlockPattern,
    union(StridedPattern, DilatedPattern, BlockPattern),
]
