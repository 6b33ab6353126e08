"""In which order the windows of a text are read: a pure function of (seed, number).

Every start position is usable. An epoch visits each of them once, in `context` laps: a lap begins
at its own offset and reads windows that touch but do not overlap, so each lap reads the whole
text about once and no token twice. (Starts drawn freely leave more than a third of the text unread
in the time of one lap.) Keyed permutations give the order of laps and of the windows in them
without storing it. Nothing is remembered from step to step: a resumed run needs only its step.
"""

from __future__ import annotations

import numpy as np

from coterie.data.keyed import keys_of, permuted
from coterie.foundation.errors import DataError

_BLOCK = 1 << 12  # places permuted at once: an array costs hardly more than a number


class Windows:
    """The starts of training windows of `context` inputs and as many targets, one token later."""

    def __init__(self, num_tokens: int, context: int, seed: int) -> None:
        """Prepare for a row of tokens; one too short for a window is read as a ring.

        Raises:
            DataError: there are no tokens, or the context is not positive.
        """
        if num_tokens < 1:
            raise DataError("There are no tokens to train on.")
        if context < 1:
            raise DataError(f"The context must be at least 1 token, not {context}.")
        self.context = context
        self.seed = seed
        # A window takes context + 1 tokens: the last input's target lies one after it.
        fitting = num_tokens - context
        self.count = fitting if fitting > 0 else num_tokens
        self._laps: tuple[int, np.ndarray, np.ndarray] | None = None
        self._latest: tuple[tuple[int, int, int], np.ndarray] | None = None

    def starts(self, first: int, count: int) -> np.ndarray:
        """Return where windows number `first` to before `first + count` begin, int64 [count].

        They are numbered through all epochs: window `count` of the text begins the second.
        """
        epoch, place = divmod(first, self.count)
        parts = []
        while count:
            found = self._run(epoch, place, count)
            parts.append(found)
            count -= len(found)
            place += len(found)
            if place == self.count:
                epoch, place = epoch + 1, 0
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run(self, epoch: int, place: int, most: int) -> np.ndarray:
        """Return the next starts, int64 [1 ... most], from a place in an epoch's order."""
        offsets, ends = self._laps_of(epoch)
        lap = int(np.searchsorted(ends, place, side="right"))
        begin = int(ends[lap - 1]) if lap else 0
        block, inside = divmod(place - begin, _BLOCK)
        order = self._block(epoch, lap, block, int(ends[lap]) - begin)
        return int(offsets[lap]) + self.context * order[inside : inside + most]

    def _laps_of(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return where each lap of an epoch begins in the text and ends in the epoch's order."""
        latest = self._laps  # one look: another thread may replace it
        if latest is None or latest[0] != epoch:
            laps = min(self.context, self.count)
            numbers = np.arange(laps, dtype=np.uint64)
            offsets = permuted(numbers, laps, keys_of(self.seed, epoch, 0))
            sizes = -(-(self.count - offsets) // self.context)
            latest = self._laps = (epoch, offsets, np.cumsum(sizes))
        return latest[1], latest[2]

    def _block(self, epoch: int, lap: int, block: int, size: int) -> np.ndarray:
        """Return one block of a lap's order, int64 [n]; the latest is kept to save time."""
        latest = self._latest  # one look: another thread may replace it
        if latest is not None and latest[0] == (epoch, lap, block):
            return latest[1]
        numbers = np.arange(block * _BLOCK, min((block + 1) * _BLOCK, size), dtype=np.uint64)
        order = permuted(numbers, size, keys_of(self.seed, epoch, lap + 1))
        self._latest = ((epoch, lap, block), order)
        return order
