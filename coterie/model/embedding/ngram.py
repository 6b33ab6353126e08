"""The n-gram embedding: each token's vector, and vectors of the n-grams that end with it.

Hash embeddings as in the Byte Latent Transformer (Pagnoni et al. 2024, arXiv:2412.09871, section
3.2.1) and over-tokenized transformers (Huang et al. 2025, arXiv:2501.16975): every order has a
table of its own that n-grams are hashed into; look-ups cost next to nothing, so the tables can hold
far more parameters than the rest of a small model. Position t reads tokens t−n+1 … t only; before
the start of a text stands a padding id that no token has.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.foundation.settings import Settings
from coterie.model.costs import Count, linear, lookup
from coterie.model.embedding.full import FullEmbedding
from coterie.model.embedding.hashing import ngram_rows
from coterie.model.embedding.interface import EmbeddingPart, Ids, Places, Recent, Vectors
from coterie.model.geometry import with_past


class NgramEmbedding(Settings):
    """Settings of the n-gram embedding."""

    kind: Literal["ngram"] = "ngram"
    orders: tuple[int, ...] = Field(
        default=(2, 3, 4, 5), description="lengths of n-grams, ascending"
    )
    rows: int = Field(default=16384, ge=1, description="rows of each order's table")
    dim: int | None = Field(
        default=None, ge=1, description="channels of a row; None: the model's width"
    )
    combine: Literal["project", "add"] = Field(
        default="project",
        description="rows of all orders joined and projected to the width, or added up",
    )
    std: float = Field(default=0.02, ge=0, description="initial spread of the tables")
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="share of rows left out in training"
    )

    @field_validator("orders")
    @classmethod
    def _ascending(cls, orders: tuple[int, ...]) -> tuple[int, ...]:
        if not orders or list(orders) != sorted(set(orders)) or orders[0] < 1 or orders[-1] > 32:
            raise ValueError(f"orders are different lengths from 1 to 32, ascending, not {orders}")
        return orders

    def channels(self, width: int) -> int:
        """Return the channels of a row."""
        return self.dim or width

    def check(self, width: int) -> None:
        """Make sure that rows can be added where they shall be.

        Raises:
            ValueError: their channels are not the model's width.
        """
        if self.combine == "add" and self.channels(width) != width:
            raise ValueError(
                f"combine=add needs rows as wide as the model ({width}), not dim={self.dim}"
            )

    def build(self, vocab_size: int, width: int) -> "NgramEmbeddingPart":
        return NgramEmbeddingPart(self, vocab_size, width)

    def counts(self, vocab_size: int, width: int) -> Count:
        """Return its count: look-ups, and the projection's product."""
        channels, orders = self.channels(width), len(self.orders)
        parts = [lookup("tokens", vocab_size, width), lookup("table", orders * self.rows, channels)]
        if self.combine == "project":
            parts.append(linear("projection", orders * channels, width))
        detail = f"{self.kind}s of {', '.join(map(str, self.orders))}"
        return Count.of("embedding", detail, parts)

    def tied_counts(self, vocab_size: int, width: int) -> Count:
        """Return what a tied head multiplies: the tokens' own table."""
        return FullEmbedding().tied_counts(vocab_size, width)


class NgramEmbeddingPart(EmbeddingPart):
    """A table of token vectors and one of n-grams, all orders one after the other."""

    roles = {"weight": "embedding", "table": "table", "projection": "matrix"}

    def __init__(self, settings: NgramEmbedding, vocab_size: int, width: int) -> None:
        super().__init__()
        self.settings = settings
        self.lookback = settings.orders[-1] - 1
        self.padding_id = vocab_size
        orders, channels = len(settings.orders), settings.channels(width)
        self.initial_std = {"table": settings.std}
        self.weight = nn.Parameter(torch.empty(vocab_size, width))
        self.table = nn.Parameter(torch.empty(orders * settings.rows, channels))
        projects = settings.combine == "project"
        projection = nn.Parameter(torch.empty(width, orders * channels)) if projects else None
        self.projection = projection

    def forward(self, tokens: Ids, recent: Recent = None, places: Places = None) -> Vectors:
        """Look up the tokens and the n-grams that end with them."""
        known = with_past(tokens, recent, self.lookback, self.padding_id)
        sizes = self.settings
        rows = ngram_rows(known, sizes.orders, sizes.rows, places, self.padding_id)
        grams = F.embedding(rows, self.table)
        if self.settings.dropout and self.training:
            kept = F.dropout(grams.new_ones(*grams.shape[:-1], 1), self.settings.dropout)
            grams = grams * kept
        if self.projection is None:
            mixed = grams.sum(-2)
        else:
            mixed = F.linear(grams.flatten(-2), self.projection)
        return F.embedding(tokens, self.weight) + mixed

    def tied(
        self, hidden: Float[Tensor, "*N D"]
    ) -> tuple[Float[Tensor, "*N D"], Float[Tensor, "V D"]]:
        return hidden, self.weight
