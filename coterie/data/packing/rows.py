"""Rows: what every packing makes of a split's tokens."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from coterie.batch import TokenBatch

PADDING = -1
"""The document of what follows a row's last token."""


class Rows(Protocol):
    """The rows of one source, numbered through all epochs; each is a pure function of its number.

    Attributes:
        count: rows of an epoch.
        once: rows in which each pair of input and target is read about once.
        padding: share of the places of an epoch's rows that hold no token.
    """

    count: int
    once: int
    padding: float

    def rows(self, first: int, count: int) -> TokenBatch:
        """Return `count` rows from number `first` on, in the CPU's memory."""
        ...


class PlacedRows(Rows, Protocol):
    """Rows that are windows: the tokens of each follow one another in the split."""

    def starts(self, first: int, count: int) -> np.ndarray:
        """Return where the rows begin in the split, int64 [count]."""
        ...


def batch_of(inputs: np.ndarray, targets: np.ndarray) -> TokenBatch:
    """Return rows of numbers [B, T] as int64 tensors."""
    return TokenBatch(
        torch.from_numpy(np.ascontiguousarray(inputs, dtype=np.int64)),
        torch.from_numpy(np.ascontiguousarray(targets, dtype=np.int64)),
    )
