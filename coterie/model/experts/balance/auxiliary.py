"""The load balancing loss: coefficient · E · Σ f_e·P_e over experts; even routing costs least.

Fedus, Zoph & Shazeer 2021 (Switch), arXiv:2101.03961, equation 4. Uniform routing gives the
coefficient itself. It is taken per layer over valid tokens; whoever trains averages it over layers.
The load behind f_e is that of

- the micro-batch (`micro_batch`),
- each sequence by itself, then averaged (`sequence`): DeepSeek-V3, arXiv:2412.19437, eq. 17–20,
- all micro-batches of the optimizer step so far (`global`): Qiu et al. 2025, arXiv:2501.11873,
  section 3, where experts may specialise by sequence as long as the whole batch is spread evenly.
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from coterie.foundation.settings import Settings
from coterie.model.experts.balance.formulas import batch_product, sequence_product
from coterie.model.experts.balance.interface import BalanceInputs, BalancePart

Scope = Literal["micro_batch", "sequence", "global"]
PRODUCTS: dict[Scope, Callable[[BalanceInputs], Tensor]] = {
    "micro_batch": batch_product,
    "sequence": sequence_product,
    "global": batch_product,
}


class AuxiliaryBalance(Settings):
    """Settings of the auxiliary loss."""

    kind: Literal["auxiliary"] = "auxiliary"
    coefficient: float = Field(
        default=0.01, ge=0, description="its weight beside the language model's loss"
    )
    scope: Scope = Field(default="micro_batch", description="over what the load is to be even")

    def build(self, experts: int) -> "AuxiliaryBalancePart":
        return AuxiliaryBalancePart(self, experts)


class AuxiliaryBalancePart(BalancePart):
    """The product of shares; the gradient goes through the router's probabilities."""

    uses_loss = True
    observed: Tensor

    def __init__(self, settings: AuxiliaryBalance, experts: int) -> None:
        super().__init__()
        self.coefficient = settings.coefficient
        self.product = PRODUCTS[settings.scope]
        self.adds_up = settings.scope == "global"
        # Empty between optimizer steps, when checkpoints are written: nothing to be saved.
        observed = torch.zeros(experts, dtype=torch.int64)
        self.register_buffer("observed", observed, persistent=False)

    @torch.no_grad()
    def observe(self, load: Int[Tensor, " E"]) -> Int[Tensor, " E"]:
        """Return the load of the step's micro-batches so far, this one included."""
        if not self.adds_up:
            return load
        self.observed += load
        return self.observed.clone()

    def loss(self, inputs: BalanceInputs) -> Float[Tensor, ""]:
        """Return the term of one layer."""
        return self.coefficient * self.product(inputs)

    def update(self, load: Int[Tensor, " E"]) -> None:
        """Begin a new optimizer step."""
        self.observed.zero_()

    def forget(self) -> None:
        """Begin a new optimizer step."""
        self.observed.zero_()
