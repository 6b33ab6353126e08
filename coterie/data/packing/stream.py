"""Windows anywhere in the text: documents run on into each other, told apart by the separator."""

from __future__ import annotations

from typing import Literal

import numpy as np

from coterie.batch import IGNORE, TokenBatch
from coterie.data.packing.rows import batch_of
from coterie.data.tokens import TokenArray
from coterie.data.windows import Windows
from coterie.foundation.settings import Settings


class Stream(Settings):
    """Windows at every position of the text; a token sees across documents."""

    kind: Literal["stream"] = "stream"

    def build(self, tokens: TokenArray, context: int, seed: int) -> WindowRows:
        return WindowRows(tokens, context, seed)

    def build_evaluation(self, tokens: TokenArray, context: int) -> ConsecutiveRows:
        return ConsecutiveRows(tokens, context)


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
        self.starts = self._windows.starts

    def rows(self, first: int, count: int) -> TokenBatch:
        windows = self._tokens.gather(self.starts(first, count), self._windows.context + 1)
        return batch_of(windows[:, :-1], windows[:, 1:])


class ConsecutiveRows:
    """A split from its beginning to its end; each token after the first is a target once.

    The last row is padded with token 0 and the target `IGNORE`.
    """

    def __init__(self, tokens: TokenArray, context: int) -> None:
        self._tokens = tokens
        self._context = context
        self._pairs = max(len(tokens) - 1, 0)
        self.count = self.once = -(-self._pairs // context)

    def starts(self, first: int, count: int) -> np.ndarray:
        return np.arange(first, first + count) * self._context

    def rows(self, first: int, count: int) -> TokenBatch:
        begin = first * self._context
        end = min(begin + count * self._context, self._pairs)
        inputs = np.zeros(count * self._context, dtype=np.int64)
        targets = np.full(count * self._context, IGNORE, dtype=np.int64)
        read = self._tokens.copy(begin, end + 1)
        inputs[: end - begin] = read[:-1]
        targets[: end - begin] = read[1:]
        shape = (count, self._context)
        return batch_of(inputs.reshape(shape), targets.reshape(shape))
