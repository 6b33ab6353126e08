"""Packings: how a split's documents become rows of `context` tokens.

A member has `build(tokens, context, seed)` for training and `build_evaluation(tokens, context)`,
which reads every pair of tokens once; both return `Rows`.
"""

from __future__ import annotations

from typing import Annotated

from coterie.data.packing.isolated import Isolated
from coterie.data.packing.rows import PADDING
from coterie.data.packing.stream import Stream
from coterie.data.packing.whole import Whole
from coterie.foundation.settings import union

Packing = Annotated[Stream | Isolated | Whole, union(Stream, Isolated, Whole)]
