"""Whole texts packed into rows, each its own document: none sees another, positions begin anew.

What belongs together, the two texts of a preference, stays in one row, and so in one micro-batch.
The same texts share a row in every epoch; the order of rows is drawn anew for each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from coterie.batch import IGNORE, TokenBatch
from coterie.data.keyed import keys_of, permuted
from coterie.data.packing.best_fit import best_fit
from coterie.data.packing.rows import PADDING


class Text(NamedTuple):
    """One document: int64 [n] tokens, and the token after each, `IGNORE` where not learnt."""

    tokens: np.ndarray
    targets: np.ndarray
    value: float = 0.0  # whatever a method has to say of it


Unit = tuple[Text, ...]
"""Texts that stay in one row."""


class PackedRows:
    """Rows of one length, in memory.

    Args:
        units: what is packed, each at most `length` tokens.
        length: tokens of a row.
        seed: of the order of rows.
        kind: of the batches, whose further fields `fill` gives.

    Attributes:
        values: [rows, length] float32, the value of the text at each place, 0 at padding.
        texts, targets: how many there are in all.
        padding: share of the places that hold no token.
    """

    def __init__(
        self, units: Sequence[Unit], length: int, seed: int, kind: type[TokenBatch] = TokenBatch
    ) -> None:
        self._seed, self._kind, self.length = seed, kind, length
        sizes = np.array([sum(len(t.tokens) for t in unit) for unit in units], dtype=np.int64)
        order = np.argsort(-sizes, kind="stable")
        row_of = best_fit(np.bincount(sizes, minlength=length + 1))
        self.count = int(row_of.max()) + 1 if len(row_of) else 0
        self._arrays = {
            "tokens": np.zeros((self.count, length), dtype=np.int64),
            "targets": np.full((self.count, length), IGNORE),
            "documents": np.full((self.count, length), PADDING),
        }
        self.values = np.zeros((self.count, length), dtype=np.float32)
        self.texts = 0
        filled, held = np.zeros(self.count, dtype=np.int64), np.zeros(self.count, dtype=np.int64)
        for number, row in zip(order.tolist(), row_of.tolist(), strict=True):
            for text in units[number]:
                begin, end = int(filled[row]), int(filled[row]) + len(text.tokens)
                self._arrays["tokens"][row, begin:end] = text.tokens
                self._arrays["targets"][row, begin:end] = text.targets
                self._arrays["documents"][row, begin:end] = held[row]
                self.values[row, begin:end] = text.value
                filled[row], held[row] = end, held[row] + 1
                self.texts += 1
        self.targets = int((self._arrays["targets"] != IGNORE).sum())
        self.padding = 1 - float(filled.sum()) / max(self.count * length, 1)

    @property
    def digest(self) -> str:
        """SHA-256 of all that is read."""
        found = hashlib.sha256(f"{self._seed} {self.length}".encode())
        for name in ("tokens", "targets", "documents"):
            found.update(self._arrays[name].tobytes())
        found.update(self.values.tobytes())
        return found.hexdigest()

    def fill(self, name: str, values: np.ndarray) -> None:
        """Give the batches a further field, [rows, length] as `in_order` returns rows."""
        self._arrays[name] = values

    def in_order(self, rows: Sequence[int] | np.ndarray) -> TokenBatch:
        """Return some rows by their numbers, in the CPU's memory."""
        found = {name: torch.from_numpy(each[rows]) for name, each in self._arrays.items()}
        return self._kind(**found)

    def batch(self, step: int, rows: int) -> TokenBatch:
        """Return the rows of a step: a pure function of its number and the seed."""
        numbers = np.arange(step * rows, (step + 1) * rows)
        epochs, places = np.divmod(numbers, self.count)
        taken = np.empty(rows, dtype=np.int64)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            keys = keys_of(self._seed, epoch, 0)
            taken[here] = permuted(places[here].astype(np.uint64), self.count, keys)
        return self.in_order(taken)
