"""What a block hands its layout, and what it asks of it."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from coterie.model.experts import RouterStats
from coterie.model.part import Part

Norm = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Branches:
    """The two branches of one block in one forward pass; each maps [B, T, D] to [B, T, D].

    Attributes:
        attention_norm: normalises what attention reads.
        attention: mixes tokens; dropout and stochastic depth included.
        feedforward_norm: normalises what the feed-forward branch reads; None: as attention's.
        feedforward: works on each token, likewise; its router statistics come with it.
    """

    attention_norm: Norm
    attention: Callable[[Tensor], Tensor]
    feedforward_norm: Norm | None
    feedforward: Callable[[Tensor], tuple[Tensor, RouterStats | None]]


class BlockLayoutPart(Part, ABC):
    """Base of block layouts."""

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "B T D"], branches: Branches
    ) -> tuple[Float[Tensor, "B T D"], RouterStats | None]:
        """Return the stream after the block, and its router's statistics."""
