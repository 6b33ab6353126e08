"""The caches of all layers together, and the tokens they stand for: what the decoder is handed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from coterie.generate.cache.documents import DocumentRecord
from coterie.model import AttentionCache
from coterie.model.geometry import UnevenRows, place_rows, shifted_right

RECENT_TOKENS = 64
"""How many token ids are kept for parts that look at the ids themselves (n-gram embeddings)."""


@runtime_checkable
class LayerCache(AttentionCache, Protocol):
    """One layer's cache: the model's `AttentionCache`, and what generation needs besides."""

    def select(self, rows: Int[Tensor, " R"]) -> None:
        """Keep only these rows of the batch, in this order; a row may be named more than once."""
        ...

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes, the room for further positions included."""
        ...


class CacheStack:
    """The past of a batch of texts, as `coterie.model.cache` describes it.

    Args:
        layers: one cache per attention layer, from the bottom up.
    """

    def __init__(self, layers: Sequence[LayerCache]) -> None:
        self.layers = tuple(layers)
        self.length = 0
        self.state: dict[str, Tensor] = {}
        self._lengths: tuple[int, ...] | None = None  # of each row, once they may differ
        self._documents: DocumentRecord | None = None
        self._recent: Int[Tensor, "B n"] | None = None

    def place(
        self,
        tokens: Int[Tensor, "B T"],
        lengths: tuple[int, ...] | None = None,
        documents: Int[Tensor, "B T"] | None = None,
    ) -> UnevenRows | None:
        """Return where new tokens will stand; None while all rows have read equally much.

        Rows read without documents after some with them go on with their last document; what was
        read before any were named is document 0.

        Raises:
            ValueError: there are not as many lengths as rows.
        """
        batch, number = tokens.shape
        lengths = (number,) * batch if lengths is None else lengths
        if len(lengths) != batch:
            raise ValueError(f"{len(lengths)} lengths were given for {batch} rows")
        even = all(length == number for length in lengths)
        if self._lengths is None and even and documents is None:
            return None
        rows = place_rows(self._lengths or (self.length,) * batch, lengths, number, tokens.device)
        if documents is None and self._documents is None:
            return rows
        if self._documents is None:
            self._documents = DocumentRecord.begun(rows)
        return self._documents.place(rows, documents)

    def recent_tokens(self, count: int) -> Int[Tensor, "B n"] | None:
        """Return up to `count` of the latest tokens read; −1 where a row has read fewer."""
        assert count <= RECENT_TOKENS, f"at most {RECENT_TOKENS} recent tokens are kept"
        if self._recent is None:
            return None
        return self._recent[:, max(self._recent.shape[1] - count, 0) :]

    def extend(self, tokens: Int[Tensor, "B T"], rows: UnevenRows | None = None) -> None:
        """Make T new tokens, whose keys every layer has appended, part of the past."""
        known = tokens if self._recent is None else torch.cat((self._recent, tokens), dim=1)
        if rows is None:
            self.length += tokens.shape[1]
        else:
            self._lengths, self.length = rows.totals, max(rows.totals)
            known = shifted_right(known, tokens.shape[1] - 1 - rows.last, -1)
        self._recent = known[:, -RECENT_TOKENS:].clone()

    def select(self, rows: Int[Tensor, " R"]) -> None:
        """Keep only these rows of the batch, in this order; `[0, 0]` doubles the first."""
        for layer in self.layers:
            layer.select(rows)
        if self._recent is not None:
            self._recent = self._recent.index_select(0, rows)
        self.state = {name: each.index_select(0, rows) for name, each in self.state.items()}
        if self._lengths is not None:
            self._lengths = tuple(self._lengths[row] for row in rows.tolist())
            self.length = max(self._lengths, default=0)
        if self._documents is not None:
            self._documents = self._documents.selected(rows)

    @property
    def nbytes(self) -> int:
        """Memory held by keys and values, in bytes, the room for further positions included."""
        return sum(layer.nbytes for layer in self.layers)
