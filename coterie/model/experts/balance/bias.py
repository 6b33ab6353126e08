"""Balance without a loss: a bias per expert, added when selecting, moved after every step.

Wang et al. 2024, arXiv:2408.15664; DeepSeek-V3, arXiv:2412.19437, section 2.1.2. After each
optimizer step b_e moves by rate · sign(mean load − load_e), or in proportion to the lack:
rate · (mean − load_e) / mean. The bias is mean-centred, for only differences select. Beside it
DeepSeek-V3 (eq. 17–20, coefficient 0.0001) has a small loss on the balance of each sequence.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from coterie.foundation.settings import Settings
from coterie.model.experts.balance.formulas import sequence_product
from coterie.model.experts.balance.interface import BalanceInputs, BalancePart


class BiasBalance(Settings):
    """Settings of the selection bias."""

    kind: Literal["bias"] = "bias"
    rate: float = Field(default=0.001, gt=0, description="how far the bias moves in a step")
    rule: Literal["sign", "proportional"] = Field(
        default="sign", description="by its direction alone, or in proportion to the lack"
    )
    sequence: float = Field(
        default=0.0, ge=0, description="coefficient of a loss on each sequence's own balance"
    )

    def build(self, experts: int) -> "BiasBalancePart":
        return BiasBalancePart(self, experts)


class BiasBalancePart(BalancePart):
    """Holds the bias, in float32 whatever the model is cast to."""

    def __init__(self, settings: BiasBalance, experts: int) -> None:
        super().__init__()
        self.settings = settings
        self.uses_loss = settings.sequence > 0
        self.selection_bias = torch.zeros(experts, dtype=torch.float32)

    def loss(self, inputs: BalanceInputs) -> Float[Tensor, ""]:
        """Return the loss on each sequence's own balance."""
        return self.settings.sequence * sequence_product(inputs)

    @torch.no_grad()
    def update(self, load: Int[Tensor, " E"]) -> None:
        """Move the bias towards experts with less than the mean load."""
        assert self.selection_bias is not None
        load = load.to(self.selection_bias)
        mean = load.mean()
        if self.settings.rule == "sign":
            step = torch.sign(mean - load)
        else:
            step = (mean - load) / mean.clamp(min=1)
        self.selection_bias += self.settings.rate * step
        self.selection_bias -= self.selection_bias.mean()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Follow the model to another device, but not to another precision."""
        before = self.selection_bias
        super()._apply(fn, recurse)
        assert before is not None
        assert self.selection_bias is not None
        if self.selection_bias.dtype != torch.float32:
            self.selection_bias = before.to(self.selection_bias.device)
        return self
