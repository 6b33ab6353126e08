"""Best-fit decreasing: each piece, longest first, into the fullest row that still has room for it.

It takes at most 11/9 of the fewest rows possible, plus a few (Johnson et al. 1974); Ding et al.
2024 (arXiv:2404.10830) pack documents for training this way. Pieces of one length are placed
together, so that the loop grows with the number of lengths, not of pieces.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterator

import numpy as np


def best_fit(counts: np.ndarray) -> np.ndarray:
    """Return the row that each piece goes into, int64 [pieces], longest pieces first.

    Args:
        counts: how many pieces there are of each length 0 … row, int64 [row + 1]; none of length 0.
    """
    open_rows = _OpenRows(len(counts) - 1)
    placed = [
        part
        for length in np.flatnonzero(counts)[::-1].tolist()
        for part in open_rows.place(length, int(counts[length]))
    ]
    return np.concatenate(placed) if placed else np.empty(0, dtype=np.int64)


class _OpenRows:
    """Rows by the room left in them."""

    def __init__(self, row: int) -> None:
        self._row = row
        self._begun = 0
        self._rows: dict[int, list[np.ndarray]] = defaultdict(list)
        self._rooms: list[int] = []  # the keys of `_rows`, rising

    def place(self, length: int, count: int) -> Iterator[np.ndarray]:
        """Yield the rows of `count` pieces of one length."""
        while count:
            at = bisect_left(self._rooms, length)
            if at < len(self._rooms):
                room = self._rooms.pop(at)
                rows = np.concatenate(self._rows.pop(room))
            else:
                room = self._row
                rows = np.arange(self._begun, self._begun - count // -(room // length))
                self._begun += len(rows)
            each = room // length  # a row that took one of them is the fullest one for the next
            full = rows[: count // each]
            yield np.repeat(full, each)
            self._keep(room - each * length, full)
            count -= each * len(full)
            rows = rows[len(full) :]
            if count and len(rows):
                yield np.repeat(rows[:1], count)
                self._keep(room - count * length, rows[:1])
                count, rows = 0, rows[1:]
            self._keep(room, rows)

    def _keep(self, room: int, rows: np.ndarray) -> None:
        if room and len(rows):
            if room not in self._rows:
                insort(self._rooms, room)
            self._rows[room].append(rows)
