"""The factorised embedding: short token vectors, projected to the model's width.

Lan et al. 2019 (ALBERT), arXiv:1909.11942: V·R + R·D parameters in place of V·D.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.foundation.settings import Settings
from coterie.model.costs import Count, linear, lookup
from coterie.model.embedding.interface import EmbeddingPart, Ids, Places, Recent, Vectors


class FactorisedEmbedding(Settings):
    """Settings of the factorised embedding."""

    kind: Literal["factorised"] = "factorised"
    rank: int = Field(ge=1, description="channels of a token's own vector")

    def check(self, width: int) -> None:
        """Accept every width."""

    def build(self, vocab_size: int, width: int) -> "FactorisedEmbeddingPart":
        return FactorisedEmbeddingPart(vocab_size, self.rank, width)

    def counts(self, vocab_size: int, width: int) -> Count:
        """Return its count: a look-up and a product."""
        table = lookup("table", vocab_size, self.rank)
        return Count.of("embedding", self.kind, [table, linear("projection", self.rank, width)])

    def tied_counts(self, vocab_size: int, width: int) -> Count:
        """Return what a tied head multiplies: the projection and the table, both transposed."""
        projection = self.rank * width
        # The projection is active once already, in the embedding; here only its operations count.
        size = vocab_size * self.rank
        return Count("head", "tied", active=size, flops=2.0 * (size + projection))


class FactorisedEmbeddingPart(EmbeddingPart):
    """A table of short vectors and the projection of them."""

    roles = {"weight": "embedding", "projection": "matrix"}

    def __init__(self, vocab_size: int, rank: int, width: int) -> None:
        super().__init__()
        # What is projected spreads as the table does. Drawn as small as other matrices, the tokens
        # would begin far below the positions that are added to them.
        self.initial_std = {"projection": rank**-0.5}
        self.weight = nn.Parameter(torch.empty(vocab_size, rank))
        self.projection = nn.Parameter(torch.empty(width, rank))

    def forward(self, tokens: Ids, recent: Recent = None, places: Places = None) -> Vectors:
        """Look the tokens up and project them; the stream keeps its precision under autocast."""
        short = F.embedding(tokens, self.weight)
        return F.linear(short, self.projection).to(short.dtype)

    def tied(
        self, hidden: Float[Tensor, "*N D"]
    ) -> tuple[Float[Tensor, "*N R"], Float[Tensor, "V R"]]:
        return F.linear(hidden, self.projection.mT), self.weight
