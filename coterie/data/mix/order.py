"""The order in which sources take turns: every prefix holds the ratio to within one row.

Row n goes to the source that is due first among those that are owed enough: with K sources of
shares w, of which source k has had c rows, those with w·(n+1) − c ≥ 1/(2K−2) are owed enough, and k
is due when w·n − c reaches 1 − 1/(2K−2). No source is then ever 1 − 1/(2K−2) rows from its share
(R. Tijdeman, The chairman assignment problem, 1980). The largest deficit alone, the usual rule,
was found 1.41 rows off with ten sources.

A source that may be read a limited number of times leaves the others its share when it is used up:
what is asked for is then a line with corners, and is followed as closely.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from coterie.foundation.errors import DataError

_BLOCK = 1 << 12  # rows whose order is kept
_ROUNDING = 1e-6  # rows that a time may lie beside its place
_DOUBT = 1e-4  # rows of a source; more than rounding can make of them


class Order:
    """Which source each row comes from: a pure function of the row's number.

    It is computed from the nearest row before at which all are given what they are owed enough for;
    with two to four sources, or weights such as 0.7, 0.2 and 0.1, there is always one close by.
    """

    def __init__(self, weights: Sequence[float], limits: Sequence[int] | None = None) -> None:
        """Prepare for sources.

        Args:
            weights: of each source, not negative, one positive; they need not add up to one.
            limits: the most rows of each source; None: no limit.
        """
        self._limits = limits
        self._corners, self._asked, self._rates = _corners(weights, limits)
        self._slack = 1 / max(2 * len(weights) - 2, 2)
        self._counts = {0: [0] * len(weights)}  # rows of each source before a block
        self._latest: tuple[int, np.ndarray] | None = None

    @property
    def length(self) -> int | None:
        """Rows until every source is used up; None: endless."""
        return None if self._limits is None else round(self._corners[-1])

    def asked(self, rows: np.ndarray | int) -> np.ndarray:
        """Return how many of the first rows each source should have, float64 [K] or [K, N]."""
        bend = np.minimum(np.searchsorted(self._corners, rows, "right"), len(self._rates)) - 1
        past = rows - np.array(self._corners)[bend]
        return np.array(self._asked)[:, bend] + past * np.array(self._rates)[bend].T

    def counts(self, row: int) -> np.ndarray:
        """Return how many rows of each source come before a row, int64 [K]."""
        block, inside = divmod(row, _BLOCK)
        before = np.array(self._before(block), dtype=np.int64)
        if not inside:
            return before
        return before + np.bincount(self._block(block)[:inside], minlength=len(before))

    def sources(self, first: int, count: int) -> np.ndarray:
        """Return the source of each of `count` rows from `first` on, int64 [count].

        Raises:
            DataError: all sources are used up before that.
        """
        if self.length is not None and first + count > self.length:
            raise DataError(
                f"All sources are used up after {self.length:,} rows.",
                hint="Raise epochs_at_most, leave it out, or train for fewer steps.",
            )
        parts, end = [], first + count
        while first < end:
            block, inside = divmod(first, _BLOCK)
            parts.append(self._block(block)[inside : inside + end - first])
            first += len(parts[-1])
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def _before(self, block: int) -> list[int]:
        """Return how many rows of each source come before a block."""
        known = block
        while known not in self._counts and not self._settle(known):
            known -= 1
        for number in range(known, block):
            order = self._computed(number * _BLOCK, _BLOCK, self._counts[number])
            counted = np.bincount(order, minlength=len(self._asked))
            self._counts[number + 1] = np.add(self._counts[number], counted).tolist()
        return self._counts[block]

    def _settle(self, block: int) -> bool:
        """Count the rows before a block from the last row of the one before at which none is owed.

        Whether a source is owed enough does not depend on the order so far: where the rows that
        sources were owed enough for are just as many as rows were given, those are the counts.
        """
        rows = np.arange((block - 1) * _BLOCK + 1, block * _BLOCK + 1)
        owed = self.asked(rows) + (1 - self._slack)
        given = np.floor(owed)
        doubtful = np.abs(owed - np.round(owed)).min(axis=0) < _DOUBT  # rounding could decide
        found = np.flatnonzero((given.sum(axis=0) == rows) & ~doubtful)
        if not len(found):
            return False
        row, counts = int(rows[found[-1]]), given[:, found[-1]].astype(np.int64).tolist()
        order = self._computed(row, block * _BLOCK - row, counts)
        counted = np.bincount(order, minlength=len(counts))
        self._counts[block] = np.add(counts, counted).tolist()
        return True

    def _block(self, block: int) -> np.ndarray:
        """Return the order of one block, int64 [≤ _BLOCK]; the latest is kept to save time."""
        latest = self._latest  # one look: another thread may replace it
        if latest is not None and latest[0] == block:
            return latest[1]
        order = self._computed(block * _BLOCK, _BLOCK, self._before(block))
        self._latest = (block, order)
        return order

    def _computed(self, first: int, most: int, before: Sequence[int]) -> np.ndarray:
        """Return the order of rows from `first` on, which follow `before` rows of each source."""
        slack, counts = self._slack, list(before)
        waiting = [(self._when(k, count + slack), k) for k, count in enumerate(counts)
                   if self._has(k, count)]  # fmt: skip
        heapq.heapify(waiting)
        due: list[tuple[float, int]] = []
        order: list[int] = []
        while len(order) < most and (waiting or due):
            row = first + len(order) + 1 + _ROUNDING
            while waiting and (waiting[0][0] <= row or not due):
                source = heapq.heappop(waiting)[1]
                heapq.heappush(due, (self._when(source, counts[source] + 1 - slack), source))
            source = heapq.heappop(due)[1]
            order.append(source)
            counts[source] += 1
            if self._has(source, counts[source]):
                when = self._when(source, counts[source] + slack)
                heapq.heappush(waiting, (when, source))
        return np.array(order, dtype=np.int64)

    def _has(self, source: int, count: int) -> bool:
        if self._limits is not None:
            return count < self._limits[source]
        return self._rates[0][source] > 0

    def _when(self, source: int, amount: float) -> float:
        """Return after how many rows a source is owed an amount."""
        asked = self._asked[source]
        at = bisect_right(asked, amount, 0, len(self._rates)) - 1
        while at and not self._rates[at][source]:  # used up, but for rounding
            at -= 1
        return self._corners[at] + (amount - asked[at]) / self._rates[at][source]


def _corners(
    weights: Sequence[float], limits: Sequence[int] | None
) -> tuple[list[float], list[list[float]], list[list[float]]]:
    """Return where what is asked for bends.

    Returns:
        The rows at which it does, the first 0; what each source should have had there, [K, C]; and
        the share of each after each but the last, [C, K]. Without limits it never bends.
    """
    count = len(weights)
    if limits is None:
        total = float(sum(weights))
        return [0.0], [[0.0] for _ in weights], [[weight / total for weight in weights]]
    corners, asked, rates = [0.0], [[0.0] for _ in weights], []
    left = {k for k in range(count) if weights[k] > 0 and limits[k] > 0}
    while left:
        total = float(sum(weights[k] for k in left))
        rates.append([weights[k] / total if k in left else 0.0 for k in range(count)])
        lasts = {k: (limits[k] - asked[k][-1]) / rates[-1][k] for k in left}
        length = min(lasts.values())
        corners.append(corners[-1] + length)
        for k in range(count):
            asked[k].append(asked[k][-1] + length * rates[-1][k])
        for k in [k for k in left if lasts[k] <= length * (1 + 1e-12)]:
            asked[k][-1] = float(limits[k])
            left.remove(k)
    return corners, asked, rates
