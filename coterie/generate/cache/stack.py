"""The caches of all layers together, and the tokens they stand for: what the decoder is handed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

RECENT_TOKENS = 64
"""How many token ids are kept for parts that look at the ids themselves (n-gram embeddings)."""


@runtime_checkable
class LayerCache(Protocol):
    """One layer's cache: the model's `AttentionCache`, and what generation needs besides."""

    def append(
        self, keys: Float[Tensor, "B K T C"], values: Float[Tensor, "B J T E"]
    ) -> tuple[Float[Tensor, "B K S C"], Float[Tensor, "B J S E"], int]:
        """Add T positions; return the positions needed (sinks first) and the place of the run."""
        ...

    def select(self, rows: Int[Tensor, " R"]) -> None:
        """Keep only these rows of the batch, in this order; a row may be named more than once."""
        ...

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes, the room for further positions included."""
        ...


class CacheStack:
    """The past of a batch of texts of equal length, as `coterie.model.cache` describes it.

    Args:
        layers: one cache per attention layer, from the bottom up.
    """

    def __init__(self, layers: Sequence[LayerCache]) -> None:
        self.layers = tuple(layers)
        self.length = 0
        self.state: dict[str, Tensor] = {}
        self._recent: Int[Tensor, "B n"] | None = None

    def recent_tokens(self, count: int) -> Int[Tensor, "B n"] | None:
        """Return up to `count` of the latest tokens read; `None` before the first call."""
        assert count <= RECENT_TOKENS, f"at most {RECENT_TOKENS} recent tokens are kept"
        if self._recent is None:
            return None
        return self._recent[:, max(self._recent.shape[1] - count, 0) :]

    def extend(self, tokens: Int[Tensor, "B T"]) -> None:
        """Make T new tokens, whose keys every layer has appended, part of the past."""
        self.length += tokens.shape[1]
        known = tokens if self._recent is None else torch.cat((self._recent, tokens), dim=1)
        self._recent = known[:, -RECENT_TOKENS:].clone()

    def select(self, rows: Int[Tensor, " R"]) -> None:
        """Keep only these rows of the batch, in this order; `[0, 0]` doubles the first."""
        for layer in self.layers:
            layer.select(rows)
        if self._recent is not None:
            self._recent = self._recent.index_select(0, rows)
        self.state = {name: each.index_select(0, rows) for name, each in self.state.items()}

    @property
    def nbytes(self) -> int:
        """Memory held by keys and values, in bytes, the room for further positions included."""
        return sum(layer.nbytes for layer in self.layers)
