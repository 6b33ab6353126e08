"""The head: from the last hidden states to one logit per token of the vocabulary."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.foundation.settings import Settings
from coterie.model.costs import Count, linear
from coterie.model.embedding import Embedding, EmbeddingPart
from coterie.model.loss import cross_entropy
from coterie.model.part import Part


class HeadSettings(Settings):
    """Settings of the head."""

    tied: bool = Field(default=False, description="multiply with the embedding's own matrix")
    bias: bool = Field(default=False, description="one bias per token of the vocabulary")

    def build(self, vocab_size: int, width: int) -> "Head":
        return Head(self, vocab_size, width)

    def counts(self, embedding: Embedding, vocab_size: int, width: int) -> Count:
        """Return its count; a tied head's matrix is the embedding's."""
        if not self.tied:
            return linear("head", width, vocab_size, bias=self.bias)
        bias = vocab_size * self.bias
        own = Count("bias", "", bias, bias)
        return Count.of("head", "tied", [embedding.tied_counts(vocab_size, width), own])


class Head(Part):
    """The matrix of the head, unless it is tied, and its bias.

    Attributes:
        linear: multiplies hidden states with the matrix over the vocabulary and adds the bias; may
            be replaced from outside where that matrix is cut.
        cross_entropy: the losses of targets, likewise.
    """

    roles = {"weight": "head", "bias": "bias"}

    def __init__(self, settings: HeadSettings, vocab_size: int, width: int) -> None:
        super().__init__()
        weight = None if settings.tied else nn.Parameter(torch.empty(vocab_size, width))
        self.weight = weight
        self.bias = nn.Parameter(torch.empty(vocab_size)) if settings.bias else None
        self.linear: Callable[..., Tensor] = F.linear
        self.cross_entropy: Callable[..., Tensor] = cross_entropy

    def operands(
        self, hidden: Float[Tensor, "*N D"], embedding: EmbeddingPart
    ) -> tuple[Float[Tensor, "*N R"], Float[Tensor, "V R"]]:
        """Return what to multiply: hidden states, and a matrix over the vocabulary."""
        return embedding.tied(hidden) if self.weight is None else (hidden, self.weight)
