"""Mixers: from which source each row of a batch comes.

A member has `build(counts, seed)`, given how many rows an epoch of each source has, and returns a
`Mixer`.
"""

from __future__ import annotations

from typing import Annotated

from coterie.data.mix.protocol import Share, part_of
from coterie.data.mix.single import Single
from coterie.foundation.settings import union

Mix = Annotated[Single, union(Single)]
