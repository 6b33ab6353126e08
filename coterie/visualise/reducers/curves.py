"""Numbers over the steps of a run, in bounded memory, and how curves are smoothed and thinned."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")


class Thinned(Generic[T]):
    """A list that holds every item up to a limit; beyond it every second, then fourth, and so on.

    The first and the latest item are always in it.
    """

    def __init__(self, limit: int) -> None:
        assert limit >= 2
        assert limit % 2 == 0
        self.limit = limit
        self.count = 0  # of all items there were
        self._items: list[T] = []
        self._every = 1
        self._between = False  # the latest item is there only for being the latest

    def append(self, item: T) -> None:
        if self._between:
            self._items.pop()
        self._items.append(item)
        self.count += 1
        if len(self._items) > self.limit:  # odd, so that the latest stays
            self._items = self._items[::2]
            self._every *= 2
        self._between = (self.count - 1) % self._every != 0

    def keep(self, wanted: Callable[[T], bool]) -> None:
        """Drop all items but those wanted."""
        before = len(self._items)
        self._items = [item for item in self._items if wanted(item)]
        if len(self._items) < before:
            self.count = max(0, (len(self._items) - 1) * self._every + 1) if self._items else 0
            self._between = False

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __getitem__(self, index: int) -> T:
        return self._items[index]


ROWS = 1 << 15  # most rows that are kept
POINTS = 1500  # most points that a drawn curve keeps
_NAN = math.nan


class Curves:
    """Rows of named numbers, one a step. A full table halves itself: rows are merged two by two.

    A merged row has the latest step and totals, and of every other number the mean, the lowest and
    the highest. Numbers that are not finite are left out where others are merged with them.

    Args:
        totals: names of numbers that count up.
        limit: most rows; even.
    """

    def __init__(self, *totals: str, limit: int = ROWS) -> None:
        assert limit >= 2
        assert limit % 2 == 0
        self.limit = limit
        self._steps = array("d")
        self._totals = {name: array("d") for name in totals}
        self._means: dict[str, array[float]] = {}
        self._lows: dict[str, array[float]] = {}  # like the highs empty until rows are merged
        self._highs: dict[str, array[float]] = {}
        self._every = 1  # rows of the log that one row stands for
        self._filled = 1  # of them, how many the last row stands for so far

    def add(self, step: int, numbers: Mapping[str, float | None]) -> None:
        """Add a row; a number that is None or left out is not a number there."""
        for name in numbers.keys() - self._totals.keys() - self._means.keys():
            for table in self._tables[1:]:
                table[name] = array("d", [_NAN]) * len(self)
        if len(self) and self._filled < self._every:
            self._merge(step, numbers)
            return
        if len(self) >= self.limit:
            self._halve()
        self._steps.append(step)
        self._filled = 1
        for table in self._tables:
            for name, column in table.items():
                number = numbers.get(name)
                column.append(_NAN if number is None else number)

    @property
    def _tables(self) -> tuple[dict[str, array[float]], ...]:
        merged = (self._lows, self._highs) if self._every > 1 else ()
        return (self._totals, self._means, *merged)

    def rewind(self, step: int) -> None:
        """Drop the rows beyond a step."""
        kept = self.steps <= step
        if kept.all():
            return
        self._steps = array("d", np.array(self._steps)[kept])
        for table in self._tables:
            for name, column in table.items():
                table[name] = array("d", np.array(column)[kept])
        self._filled = self._every

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, name: str) -> np.ndarray:
        """[N] a number over the steps: a total, or the mean where rows were merged."""
        column = self._totals[name] if name in self._totals else self._means.get(name)
        return np.full(len(self), _NAN) if column is None else np.array(column)

    @property
    def steps(self) -> np.ndarray:
        """[N] the step of each row."""
        return np.array(self._steps).astype(np.int64)

    @property
    def names(self) -> list[str]:
        """Names of the numbers that are no totals."""
        return list(self._means)

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        """[N] each number whose name begins so, by the rest of its name, sorted."""
        names = sorted(name for name in self.names if name.startswith(prefix))
        return {name.removeprefix(prefix): self[name] for name in names}

    def last(self, name: str) -> float:
        """Return the latest value of a total, 0 where there is none."""
        column = self._totals[name]
        return column[-1] if column else 0.0

    @property
    def last_step(self) -> int:
        """The latest step, 0 where there is none."""
        return int(self._steps[-1]) if self._steps else 0

    def extremes(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return (steps, values) of a curve that passes through every merged row's extremes."""
        if self._every == 1 or name not in self._lows:
            return self.steps, self[name]
        both = np.stack([np.array(self._lows[name]), np.array(self._highs[name])], axis=1)
        return np.repeat(self.steps, 2), both.reshape(-1)

    def _merge(self, step: int, numbers: Mapping[str, float | None]) -> None:
        """Merge a row into the last one."""
        self._filled += 1
        self._steps[-1] = step
        for name, column in self._totals.items():
            column[-1] = numbers.get(name) or column[-1]
        for name in self._means:
            number = numbers.get(name)
            if number is None or not math.isfinite(number):
                continue
            mean, low, high = self._means[name], self._lows[name], self._highs[name]
            if math.isfinite(mean[-1]):
                mean[-1] += (number - mean[-1]) / self._filled
                low[-1], high[-1] = min(low[-1], number), max(high[-1], number)
            else:
                mean[-1] = low[-1] = high[-1] = number

    def _halve(self) -> None:
        lows, highs = (self._lows, self._highs) if self._every > 1 else (self._means, self._means)
        self._every *= 2
        self._filled = self._every
        self._steps = self._steps[1::2]
        self._totals = {name: column[1::2] for name, column in self._totals.items()}
        self._means = _paired(self._means, lambda a, b: (a + b) / 2)
        self._lows = _paired(lows, np.minimum)
        self._highs = _paired(highs, np.maximum)


def _paired(
    table: Mapping[str, array[float]], merge: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> dict[str, array[float]]:
    merged = {}
    for name, column in table.items():
        first, second = np.array(column).reshape(-1, 2).T
        with np.errstate(invalid="ignore"):
            both = merge(first, second)
        one = np.where(np.isfinite(first), first, second)
        known = np.isfinite(first) & np.isfinite(second)
        merged[name] = array("d", np.where(known, both, one))
    return merged


def smooth(values: np.ndarray, window: int | None = None) -> np.ndarray:
    """Return a running mean that does not lag: centred, narrowing towards the first value.

    Values that are not finite are left out. The mean is taken twice, which weights near values more
    and leaves no steps at the edges of a peak. The window is a fortieth of the series unless given.
    """
    if len(values) == 0:
        return values
    half = max(1, (window or max(5, len(values) // 40)) // 2)
    return _running_mean(_running_mean(values, half), half)


def _running_mean(values: np.ndarray, half: int) -> np.ndarray:
    """Return means over up to `half` values either side; at the end the window trails."""
    count = len(values)
    finite = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    number = np.concatenate([[0], np.cumsum(finite)])
    position = np.arange(count)
    low = np.maximum(0, position - np.minimum(position, half))
    high = np.minimum(count, position + np.minimum(position, half) + 1)
    among = number[high] - number[low]
    with np.errstate(invalid="ignore"):
        return np.where(among > 0, (total[high] - total[low]) / np.maximum(among, 1), np.nan)


def thin(
    x: np.ndarray, y: np.ndarray, limit: int = POINTS
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return at most about `limit` points of a curve, keeping every bucket's extremes.

    The first and last points stay; a peak of one step is never lost.
    """
    if len(x) <= limit:
        return x, y
    edges = np.linspace(0, len(x), max(2, limit // 2)).astype(int)
    keep = {0, len(x) - 1}
    for low, high in pairwise(edges):
        bucket = y[low:high]
        if np.isfinite(bucket).any():
            keep.update((low + int(np.nanargmin(bucket)), low + int(np.nanargmax(bucket))))
        else:
            keep.add(int(low))
    index = np.array(sorted(keep))
    return x[index], y[index]
