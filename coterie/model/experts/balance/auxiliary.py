"""The auxiliary loss: coefficient · E · Σ f_e·P_e over experts.

Fedus, Zoph & Shazeer 2021 (Switch), arXiv:2101.03961, equation 4: f_e is expert e's share of the
selected pairs, P_e the mean of the router's shares for it. Uniform routing gives the coefficient
itself. It is taken per layer over valid tokens; whoever trains averages it over layers.
"""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from coterie.foundation.settings import Settings
from coterie.model.experts.balance.interface import BalancePart


class AuxiliaryBalance(Settings):
    """Settings of the auxiliary loss."""

    kind: Literal["auxiliary"] = "auxiliary"
    coefficient: float = Field(
        default=0.01, ge=0, description="its weight beside the loss of the text"
    )

    def build(self, experts: int) -> AuxiliaryBalancePart:
        """Return the module."""
        return AuxiliaryBalancePart(self.coefficient)


class AuxiliaryBalancePart(BalancePart):
    """The product of shares; the gradient goes through the router's probabilities."""

    uses_loss = True

    def __init__(self, coefficient: float) -> None:
        super().__init__()
        self.coefficient = coefficient

    def loss(
        self, mean_probabilities: Float[Tensor, " E"], load: Int[Tensor, " E"]
    ) -> Float[Tensor, ""]:
        """Return the term of one layer."""
        share = load / load.sum().clamp(min=1)
        return (
            self.coefficient * load.shape[0] * (share.to(mean_probabilities) @ mean_probabilities)
        )
