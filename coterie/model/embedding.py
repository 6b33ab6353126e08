"""From token ids to vectors: a closed union.

An embedding module maps tokens [B, T] to [B, T, D]. Its `lookback` says how many earlier tokens it
reads besides each token itself; when generating they come from the cache. `tied` turns the final
hidden states into what a head multiplies with the embedding's own matrix.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.foundation.settings import Settings, union
from coterie.model.costs import Count, linear, lookup
from coterie.model.geometry import with_past
from coterie.model.part import Part

Ids = Int[Tensor, "B T"]
Recent = Int[Tensor, "B n"] | None
Places = Int[Tensor, "B T"] | None
Vectors = Float[Tensor, "B T D"]


class EmbeddingPart(Part, ABC):
    """Base of embedding modules."""

    lookback: int = 0

    @abstractmethod
    def forward(self, tokens: Ids, recent: Recent = None, places: Places = None) -> Vectors:
        """Return the tokens' vectors.

        Args:
            recent: up to `lookback` tokens that came just before, −1 where a row has none; None at
                the start of a text.
            places: of each token in its document, where rows hold several; none reads another.
        """

    @abstractmethod
    def tied(
        self, hidden: Float[Tensor, "*N D"]
    ) -> tuple[Float[Tensor, "*N R"], Float[Tensor, "V R"]]:
        """Return what a tied head multiplies: hidden states and a matrix over the vocabulary."""


_PRIME = 2**31 - 1
_BASE = 1_000_003
_MIXER = 1_540_483_477  # odd, spreads neighbouring residues over the whole range


def ngram_rows(
    tokens: Int[Tensor, "B n"],
    orders: Sequence[int],
    rows: int,
    places: Int[Tensor, "B t"] | None = None,
    padding: int = 0,
) -> Int[Tensor, "B t O"]:
    """Return the row, in one table for all orders, of the n-grams that end at each position.

    The same on every machine and device: the n-gram ending at t is the polynomial
    Σ (id(t−j) + 1)·a^j over j = 0 … n−1, modulo the prime p = 2³¹ − 1 (a rolling hash, Karp & Rabin
    1987), multiplied by a constant of its order before it is folded into the table's rows. All
    products of two residues stay below 2⁶², so nothing overflows.

    Args:
        tokens: ids; the first max(orders) − 1 of them are only looked back at.
        orders: lengths of n-grams, ascending.
        rows: rows per order; those of order i lie in [i·rows, (i + 1)·rows).
        places: of each of the t positions in its document; None: all are of one.
        padding: id that stands before the start of a document.
    """
    longest = orders[-1]
    length = tokens.shape[1] - longest + 1
    ids = tokens + 1
    found = []
    residue = torch.zeros_like(ids[:, :length])
    power = 1
    for back in range(longest):
        start = longest - 1 - back
        earlier = ids[:, start : start + length]
        if places is not None:
            earlier = earlier.where(places >= back, padding + 1)
        residue = (residue + earlier * power) % _PRIME
        power = power * _BASE % _PRIME
        if back + 1 in orders:
            found.append(residue * mixer(back + 1) % _PRIME % rows + len(found) * rows)
    return torch.stack(found, dim=-1)


def mixer(order: int) -> int:
    """Return the constant that residues of n-grams of this length are multiplied by."""
    return pow(_MIXER, order, _PRIME)


class FullEmbedding(Settings):
    """The full embedding: one vector of the model's width per token."""

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


class FactorisedEmbedding(Settings):
    """The factorised embedding: short token vectors, projected to the model's width.

    Lan et al. 2019 (ALBERT), arXiv:1909.11942: V·R + R·D parameters in place of V·D.
    """

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


class NgramEmbedding(Settings):
    """The n-gram embedding: each token's vector, and vectors of the n-grams that end with it.

    Hash embeddings as in the Byte Latent Transformer (Pagnoni et al. 2024, arXiv:2412.09871,
    section 3.2.1) and over-tokenized transformers (Huang et al. 2025, arXiv:2501.16975): every
    order has a table of its own that n-grams are hashed into; look-ups cost next to nothing, so the
    tables can hold far more parameters than the rest of a small model. Position t reads tokens
    t−n+1 … t only; before the start of a text stands a padding id that no token has.
    """

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


Embedding = Annotated[
    FullEmbedding | FactorisedEmbedding | NgramEmbedding,
    union(FullEmbedding, FactorisedEmbedding, NgramEmbedding),
]
