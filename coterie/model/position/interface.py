"""What the decoder asks of a position module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coterie.model.part import Part


@dataclass(frozen=True)
class Span:
    """The positions of one pass: `start`, `start + 1`, … or those given.

    Attributes:
        start: the first token's position.
        length: how many tokens there are.
        device: where they are.
        at: the position of each token where several documents share a row, each from 0.
    """

    start: int
    length: int
    device: torch.device
    at: Int[Tensor, "B T"] | None = None


@dataclass(frozen=True)
class Rotation:
    """How queries and keys are turned in one pass.

    Attributes:
        turn: turns queries or keys [B, T, H, C] by the positions it was made for.
        logit_scale: factor on every product of a query and a key, besides 1 / sqrt(C).
    """

    turn: Callable[[Tensor], Tensor]
    logit_scale: float = 1.0

    def __call__(self, x: Float[Tensor, "B T H C"]) -> Float[Tensor, "B T H C"]:
        """Turn queries or keys."""
        return self.turn(x)


class PositionPart(Part):
    """A position module that does nothing; each kind overrides what it needs.

    Attributes:
        limit: how many positions it can name; None: any number.
        stable: up to how many positions a token's turn does not depend on how long the text is;
            None: always. Beyond it nothing that was turned may be kept in a cache.
    """

    limit: int | None = None
    stable: int | None = None

    def embed(self, span: Span) -> Float[Tensor, "*B T D"] | None:
        """Return what is added to the embeddings of the span's tokens."""
        return None

    def rotation(self, span: Span) -> Rotation | None:
        """Return how queries and keys of the span's tokens are turned."""
        return None
