"""What the decoder asks of a position module, and the positions that rotate nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from coterie.foundation.errors import UserError
from coterie.foundation.settings import Settings
from coterie.model.costs import Count, lookup
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


class NoPosition(Settings):
    """No positions: order is known only through the causal mask.

    Kazemnejad et al. 2023, arXiv:2305.19466.
    """

    kind: Literal["none"] = "none"

    def check(self, head_dim: int) -> None:
        """Accept every head size."""

    def build(self, width: int, context: int) -> PositionPart:
        """Return a module that neither adds nor turns anything."""
        return PositionPart()

    def counts(self, width: int, context: int) -> Count:
        return Count("position", self.kind)


class LearnedPosition(Settings):
    """Learned positions: one vector per position, added to the token's embedding.

    Radford et al. 2019 (GPT-2). There is no vector beyond the context.
    """

    kind: Literal["learned"] = "learned"
    std: float | None = Field(
        default=None, ge=0, description="initial spread; None: the embedding's"
    )

    def check(self, head_dim: int) -> None:
        """Accept every head size."""

    def build(self, width: int, context: int) -> "LearnedPositionPart":
        """Return the module with one vector for each of `context` positions."""
        return LearnedPositionPart(self, width, context)

    def counts(self, width: int, context: int) -> Count:
        return lookup("position", context, width)


class LearnedPositionPart(PositionPart):
    """A table of position vectors."""

    roles = {"weight": "embedding"}

    def __init__(self, settings: LearnedPosition, width: int, context: int) -> None:
        super().__init__()
        self.limit = context
        self.weight = nn.Parameter(torch.empty(context, width))
        self.initial_std = {} if settings.std is None else {"weight": settings.std}

    def vectors(
        self, tokens: Int[Tensor, "B T"], span: Span, state: Tensor | None = None
    ) -> tuple[Float[Tensor, "*B T D"], None]:
        """Return the vectors of the span's positions.

        Raises:
            UserError: the text is longer than the context.
        """
        at = span.positions
        if at is None:
            stop = span.start + span.length
        else:
            stop = span.stop if span.given is None else None
            if stop is None or stop > self.weight.shape[0]:
                stop = int(at.max()) + 1  # asking waits for the device
        if stop > self.weight.shape[0]:
            raise UserError(
                f"The text has {stop} tokens, but this model has learned positions for "
                f"{self.weight.shape[0]}.",
                hint="Shorten the text, or give the model a larger context and train it.",
            )
        return self.weight[span.start : stop] if at is None else self.weight[at], None
