"""Documents packed whole into rows: none is cut unless it is longer than a row.

A document of n tokens and its separator gives n pairs of input and target; what does not fit into
one row is cut into rows, the rest of it is packed like a short document. Which lengths share a row
never changes; which documents of these lengths do, and the order of rows, is drawn anew for each
epoch. An epoch reads every pair once.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from coterie.batch import IGNORE, TokenBatch
from coterie.data.keyed import hashed, keys_of, permuted
from coterie.data.packing.best_fit import best_fit
from coterie.data.packing.rows import PADDING
from coterie.data.tokens import TokenArray
from coterie.foundation.errors import DataError
from coterie.foundation.settings import Settings


class Whole(Settings):
    """Whole documents, packed into rows by best fit; what is left of a row is padding."""

    kind: Literal["whole"] = "whole"

    def build(self, tokens: TokenArray, context: int, seed: int) -> WholeRows:
        """Return the rows of a split.

        Raises:
            DataError: no document has two tokens, or the context is not positive.
        """
        if context < 1:
            raise DataError(f"The context must be at least 1 token, not {context}.")
        rows = WholeRows(tokens, context, seed)
        if not rows.count:
            raise DataError("There is no document of two tokens to train on.")
        return rows

    def build_evaluation(self, tokens: TokenArray, context: int) -> WholeRows:
        return WholeRows(tokens, context, None)


class WholeRows:
    """Rows of whole documents, left-aligned; about 30 bytes are held for each document."""

    def __init__(self, tokens: TokenArray, context: int, seed: int | None) -> None:
        """Decide which lengths share a row; without a seed rows and documents keep their order."""
        self._tokens = tokens
        self._context = context
        self._seed = seed
        pairs = np.diff(tokens.starts, append=len(tokens)) - 1
        pieces = -(-pairs // context)  # 0 for the last document if it is one token
        document = np.repeat(np.arange(len(pairs)), pieces)
        number = np.arange(len(document)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        self._starts = tokens.starts[document] + number * context
        self._lengths = np.minimum(pairs[document] - number * context, context).astype(np.int32)
        row_of = best_fit(np.bincount(self._lengths, minlength=context + 1))
        self._places = np.argsort(row_of, kind="stable").astype(np.uint32)
        self._ends = np.cumsum(np.bincount(row_of))
        self.count = self.once = len(self._ends)
        self.padding = 1 - float(self._lengths.sum()) / max(self.count * context, 1)
        self._latest: tuple[int, np.ndarray] | None = None

    def rows(self, first: int, count: int) -> TokenBatch:
        shape = (count, self._context)
        inputs = np.zeros(shape, dtype=np.int64)
        targets = np.full(shape, IGNORE, dtype=np.int64)
        documents = np.full(shape, PADDING, dtype=np.int64)
        pieces, sizes = self._pieces(first, count)
        lengths, starts = self._lengths[pieces].astype(np.int64), self._starts[pieces]
        # Each piece is read with the token after it: the last target.
        read = self._tokens.concatenated(starts, lengths + 1)
        ends = np.cumsum(lengths)
        source = np.arange(ends[-1]) + np.repeat(np.arange(len(pieces)), lengths)
        before = np.repeat(np.cumsum(sizes) - sizes, sizes)  # first piece of each piece's row
        column = np.repeat((ends - lengths)[before], lengths)
        place = (np.repeat(np.repeat(np.arange(count), sizes), lengths),
                 np.arange(ends[-1]) - column)  # fmt: skip
        inputs[place], targets[place] = read[source], read[source + 1]
        owner = np.searchsorted(self._tokens.starts, starts, side="right") - 1
        documents[place] = np.repeat(owner, lengths)
        inputs, targets, documents = map(torch.from_numpy, (inputs, targets, documents))
        return TokenBatch(inputs, targets, documents=documents)

    def _pieces(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the pieces of rows, one row after the other, and how many each row has."""
        pieces, sizes = [], []
        while count:
            epoch, begin = divmod(first, self.count)
            rows = np.arange(begin, min(begin + count, self.count))
            if self._seed is not None:
                keys = keys_of(self._seed, epoch, 0)
                rows = permuted(rows.astype(np.uint64), self.count, keys)
            ends = self._ends[rows]
            begins = np.where(rows > 0, self._ends[rows - 1], 0)
            taken = np.concatenate([self._places[a:b] for a, b in zip(begins, ends, strict=True)])
            pieces.append(self._order(epoch)[taken])
            sizes.append(ends - begins)
            first, count = first + len(rows), count - len(rows)
        return np.concatenate(pieces), np.concatenate(sizes)

    def _order(self, epoch: int) -> np.ndarray:
        """Return all pieces, longest first, in an epoch's order of those of equal length."""
        latest = self._latest  # one look: another thread may replace it
        if latest is not None and (latest[0] == epoch or self._seed is None):
            return latest[1]
        numbers = np.arange(len(self._lengths), dtype=np.uint32)
        if self._seed is not None:
            numbers = np.argsort(hashed(numbers, keys_of(self._seed, epoch, 1))).astype(np.uint32)
        order = numbers[np.argsort(-self._lengths[numbers], kind="stable")]
        self._latest = (epoch, order)
        return order
