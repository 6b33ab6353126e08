"""What follows attention in a block: one body for all tokens, or experts to choose from."""

from __future__ import annotations

from typing import Annotated, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from coterie.foundation.settings import Settings, union
from coterie.model.context import EMPTY, ForwardContext
from coterie.model.costs import Count
from coterie.model.experts import LayerRouting, MixtureOfExperts
from coterie.model.experts.bodies import Body, SwiGLU
from coterie.model.part import Part


class Dense(Settings):
    """Settings of a dense feed-forward layer."""

    kind: Literal["dense"] = "dense"
    body: Body = Field(default=SwiGLU(), description="what it computes")

    def check(self, width: int) -> None:
        """Accept every width."""

    def build(self, width: int, layer: int) -> DensePart:
        """Return the module."""
        return DensePart(self, width)

    def counts(self, width: int) -> Count:
        """Return its count."""
        body = self.body.counts("body", width)
        return Count.of("feedforward", f"{self.body.kind} {self.body.hidden(width)}", [body])


class DensePart(Part):
    """One body for every token."""

    def __init__(self, settings: Dense, width: int) -> None:
        super().__init__()
        self.body = settings.body.build(width)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        context: ForwardContext = EMPTY,
    ) -> tuple[Float[Tensor, "B T D"], LayerRouting | None]:
        """Compute the layer; nothing is routed, so there is no account."""
        return self.body(x), None


FeedForward = Annotated[Dense | MixtureOfExperts, union(Dense, MixtureOfExperts)]
