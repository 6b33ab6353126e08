"""The windows of `stream`, in which no token sees another document and none is predicted from one.

The first token of a document is thus never a target.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from coterie.batch import IGNORE, TokenBatch
from coterie.data.packing.rows import PADDING, PlacedRows
from coterie.data.packing.stream import WINDOWS, ConsecutiveRows, WindowKind, windows_of
from coterie.data.tokens import TokenArray
from coterie.foundation.settings import Settings


class Isolated(Settings):
    """Windows at every position of the text, each token confined to its own document."""

    kind: Literal["isolated"] = "isolated"
    windows: WindowKind = Field(default="sliding", description=WINDOWS)

    def build(self, tokens: TokenArray, context: int, seed: int) -> IsolatedRows:
        return IsolatedRows(windows_of(self.windows, tokens, context, seed), tokens, context)

    def build_evaluation(self, tokens: TokenArray, context: int) -> IsolatedRows:
        return IsolatedRows(ConsecutiveRows(tokens, context), tokens, context)


class IsolatedRows:
    """Windows with the number of each token's document in the split."""

    def __init__(self, windows: PlacedRows, tokens: TokenArray, context: int) -> None:
        self._windows = windows
        self._context = context
        self.count, self.once, self.padding = windows.count, windows.once, windows.padding
        self._documents = tokens.starts
        if 0 < len(tokens) <= context:  # a text shorter than a window is read as a ring
            laps = np.arange(2 + context // len(tokens)) * len(tokens)
            self._documents = (laps[:, None] + tokens.starts).ravel()

    def rows(self, first: int, count: int) -> TokenBatch:
        batch = self._windows.rows(first, count)
        numbers = self._numbers(self._windows.starts(first, count))
        crossing = torch.from_numpy(numbers[:, 1:] != numbers[:, :-1])
        documents = torch.from_numpy(numbers[:, :-1])
        padding = batch.targets == IGNORE  # of the last row of an evaluation
        return replace(
            batch,
            targets=batch.targets.masked_fill(crossing, IGNORE),
            documents=documents.masked_fill(padding, PADDING),
        )

    def _numbers(self, rows: np.ndarray) -> np.ndarray:
        """Return the document of each token of windows that begin at `rows`, int64 [B, T + 1]."""
        numbers = np.zeros((len(rows), self._context + 1), dtype=np.int64)
        before = np.searchsorted(self._documents, rows, side="right")
        after = np.searchsorted(self._documents, rows + self._context, side="right")
        counts = after - before
        row = np.repeat(np.arange(len(rows)), counts)
        inside = np.arange(len(row)) + np.repeat(before - (np.cumsum(counts) - counts), counts)
        numbers[row, self._documents[inside] - rows[row]] = 1
        numbers[:, 0] = before - 1
        return numbers.cumsum(axis=1)
