"""Windows anywhere in the text: documents run on into each other, told apart by the separator."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from coterie.batch import IGNORE, TokenBatch
from coterie.data.keyed import keys_of, permuted
from coterie.data.packing.rows import batch_of
from coterie.data.tokens import TokenArray
from coterie.data.windows import Windows
from coterie.foundation.settings import Settings

WindowKind = Literal["sliding", "once"]
WINDOWS = "where windows begin: everywhere, or so that an epoch reads each token once"


class Stream(Settings):
    """Windows at every position of the text; a token sees across documents."""

    kind: Literal["stream"] = "stream"
    windows: WindowKind = Field(default="sliding", description=WINDOWS)

    def build(self, tokens: TokenArray, context: int, seed: int) -> WindowRows | ConsecutiveRows:
        return windows_of(self.windows, tokens, context, seed)

    def build_evaluation(self, tokens: TokenArray, context: int) -> ConsecutiveRows:
        return ConsecutiveRows(tokens, context)


def windows_of(
    kind: WindowKind, tokens: TokenArray, context: int, seed: int
) -> WindowRows | ConsecutiveRows:
    """Return the training windows of a split.

    Raises:
        DataError: it has too few tokens, or the context is not positive.
    """
    if kind == "sliding" or len(tokens) < 2 or context < 1:  # which says what is wrong
        return WindowRows(tokens, context, seed)
    return ConsecutiveRows(tokens, context, seed)


class WindowRows:
    """Windows in the order of `Windows`."""

    def __init__(self, tokens: TokenArray, context: int, seed: int) -> None:
        """Prepare for a split.

        Raises:
            DataError: it has no tokens, or the context is not positive.
        """
        self._tokens = tokens
        self._windows = Windows(len(tokens), context, seed)
        self.count = self._windows.count
        self.once = -(-self.count // context)
        self.padding = 0.0
        self.starts = self._windows.starts

    def rows(self, first: int, count: int) -> TokenBatch:
        windows = self._tokens.gather(self.starts(first, count), self._windows.context + 1)
        return batch_of(windows[:, :-1], windows[:, 1:])


class ConsecutiveRows:
    """Rows that touch and do not overlap; each token after the first is a target once an epoch.

    The last row is padded with token 0 and the target `IGNORE`. With a seed, each epoch has its
    rows in an order of its own; without one there is one epoch, from beginning to end.
    """

    def __init__(self, tokens: TokenArray, context: int, seed: int | None = None) -> None:
        self._tokens = tokens
        self._seed = seed
        self._context = context
        self._pairs = max(len(tokens) - 1, 0)
        self.count = self.once = -(-self._pairs // context)
        self.padding = 1 - self._pairs / max(self.count * context, 1)

    def starts(self, first: int, count: int) -> np.ndarray:
        return self._numbers(first, count) * self._context

    def rows(self, first: int, count: int) -> TokenBatch:
        starts = self.starts(first, count)
        lengths = np.minimum(self._context, self._pairs - starts)
        read = self._tokens.concatenated(starts, lengths + 1)
        places = (starts[:, None] + np.arange(self._context)) < self._pairs
        ends = (lengths + 1).cumsum()
        shape = (count, self._context)
        inputs, targets = np.zeros(shape, dtype=np.int64), np.full(shape, IGNORE)
        inputs[places] = np.delete(read, ends - 1)
        targets[places] = np.delete(read, ends - lengths - 1)
        return batch_of(inputs, targets)

    def _numbers(self, first: int, count: int) -> np.ndarray:
        """Return which rows of the text are read, int64 [count]."""
        if self._seed is None:
            return np.arange(first, first + count)
        parts = []
        while count:
            epoch, begin = divmod(first, self.count)
            places = np.arange(begin, min(begin + count, self.count), dtype=np.uint64)
            parts.append(permuted(places, self.count, keys_of(self._seed, epoch, 0)))
            first, count = first + len(places), count - len(places)
        return np.concatenate(parts)
