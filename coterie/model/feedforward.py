"""The feed-forward layer of a block: dense, or a mixture of experts."""

from typing import Annotated, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from coterie.foundation.settings import Settings, union
from coterie.model.context import EMPTY, ForwardContext
from coterie.model.costs import Count
from coterie.model.experts import MixtureOfExperts
from coterie.model.mlp import MLP, GatedMLP
from coterie.model.part import Part


class Dense(Settings):
    """The dense layer: one MLP for every token."""

    renamed = {"body": "mlp"}

    kind: Literal["dense"] = "dense"
    mlp: MLP = Field(default=GatedMLP(), description="what it computes")

    def check(self, width: int) -> None:
        """Accept every width."""

    def build(self, width: int) -> "DensePart":
        return DensePart(self, width)

    def counts(self, width: int) -> Count:
        detail = f"{self.mlp.label} {self.mlp.hidden(width)}"
        return Count.of("feedforward", detail, [self.mlp.counts("mlp", width)])


class DensePart(Part):
    """One MLP for every token."""

    def __init__(self, settings: Dense, width: int) -> None:
        super().__init__()
        self.mlp = settings.mlp.build(width)

    def forward(
        self, x: Float[Tensor, "B T D"], context: ForwardContext = EMPTY
    ) -> tuple[Float[Tensor, "B T D"], None]:
        return self.mlp(x), None


FeedForward = Annotated[Dense | MixtureOfExperts, union(Dense, MixtureOfExperts)]
