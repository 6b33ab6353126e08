"""What the decoder asks of a position module."""

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
        at: the place of each token in its document, where rows differ or hold several.
        given: positions that take the place of those counted.
        text_lengths: how many tokens the document of each token has so far, where rows differ or
            hold several and it matters.
        last: the place of each row's last token among the new ones, −1 where it has none; None:
            the last place.
        stop: a number that no position of `at` reaches, so that nobody has to look; None: unknown.
    """

    start: int
    length: int
    device: torch.device
    at: Int[Tensor, "B T"] | None = None
    given: Int[Tensor, "B T"] | None = None
    text_lengths: Int[Tensor, "B T"] | None = None
    last: Int[Tensor, " B"] | None = None
    stop: int | None = None

    @property
    def positions(self) -> Int[Tensor, "B T"] | None:
        """The position of each token; None: `start`, `start + 1`, … in every row."""
        return self.at if self.given is None else self.given

    @property
    def begins(self) -> Int[Tensor, "B T"] | None:
        """Where each token's document begins among the new tokens, below 0 where it did before."""
        if self.at is None:
            return None
        return torch.arange(self.length, device=self.device) - self.at


@dataclass(frozen=True, eq=False)
class Rotation:
    """How queries and keys are turned in one pass.

    Attributes:
        turn: turns queries or keys [B, T, H, C] by the positions it was made for.
        logit_scale: factor on every product of a query and a key, besides 1 / sqrt(C).
    """

    turn: Callable[[Tensor], Tensor]
    logit_scale: float = 1.0

    def __call__(self, x: Float[Tensor, "B T H C"]) -> Float[Tensor, "B T H C"]:
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

    def vectors(
        self, tokens: Int[Tensor, "B T"], span: Span, state: Tensor | None = None
    ) -> tuple[Float[Tensor, "*B T D"] | None, None]:
        """Return what is added to the tokens' vectors, as an additive embedding does."""
        return None, None

    def rotation(self, span: Span) -> Rotation | None:
        """Return how queries and keys of the span's tokens are rotated."""
        return None

    def held(self) -> list[Tensor]:
        """Return the tensors that rotations read; a program that was recorded keeps them."""
        return []

    def turned_further(
        self, x: Float[Tensor, "B T H C"], by: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B T H C"]:
        """Return rotated queries or keys as they would be so many positions later."""
        return x
