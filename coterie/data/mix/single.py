"""One source: its rows in their own order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from coterie.data.mix.protocol import Share, part_of
from coterie.foundation.errors import DataError
from coterie.foundation.settings import Settings


class Single(Settings):
    """The only source, row after row."""

    kind: Literal["single"] = "single"

    def build(self, counts: Sequence[int], seed: int) -> _Single:
        """Return the mixer.

        Raises:
            DataError: there are several sources.
        """
        if len(counts) != 1:
            raise DataError(f"data.mix=single reads one source, not {len(counts)}.")
        return _Single()


class _Single:
    def shares(self, step: int, batch_size: int, rank: int, world: int) -> Sequence[Share]:
        return (Share(0, *part_of(step, batch_size, rank, world)),)
