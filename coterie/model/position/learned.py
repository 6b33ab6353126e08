"""Learned positions: one vector per position, added to the token's embedding.

Radford et al. 2019 (GPT-2). There is no vector beyond the context.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from coterie.foundation.errors import UserError
from coterie.foundation.settings import Settings
from coterie.model.costs import Count, lookup
from coterie.model.position.interface import PositionPart, Span


class LearnedPosition(Settings):
    """Settings of learned positions."""

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
            known = span.stop if span.given is None else None
            stop = int(at.max()) + 1 if known is None else known  # asking waits for the device
        if stop > self.weight.shape[0]:
            raise UserError(
                f"The text has {stop} tokens, but this model has learned positions for "
                f"{self.weight.shape[0]}.",
                hint="Shorten the text, or give the model a larger context and train it.",
            )
        return self.weight[span.start : stop] if at is None else self.weight[at], None
