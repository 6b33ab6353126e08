"""The full embedding: one vector of the model's width per token."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.foundation.settings import Settings
from coterie.model.costs import Count, lookup
from coterie.model.embedding.interface import EmbeddingPart, Ids, Places, Recent, Vectors


class FullEmbedding(Settings):
    """Settings of the full embedding."""

    kind: Literal["full"] = "full"

    def check(self, width: int) -> None:
        """Accept every width."""

    def build(self, vocab_size: int, width: int) -> "FullEmbeddingPart":
        return FullEmbeddingPart(vocab_size, width)

    def counts(self, vocab_size: int, width: int) -> Count:
        return lookup("embedding", vocab_size, width)

    def tied_counts(self, vocab_size: int, width: int) -> Count:
        """Return what a tied head multiplies; the parameters are the embedding's."""
        size = vocab_size * width
        return Count("head", "tied", active=size, flops=2.0 * size)


class FullEmbeddingPart(EmbeddingPart):
    """A table of token vectors."""

    roles = {"weight": "embedding"}

    def __init__(self, vocab_size: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, width))

    def forward(self, tokens: Ids, recent: Recent = None, places: Places = None) -> Vectors:
        return F.embedding(tokens, self.weight)

    def tied(
        self, hidden: Float[Tensor, "*N D"]
    ) -> tuple[Float[Tensor, "*N D"], Float[Tensor, "V D"]]:
        return hidden, self.weight
