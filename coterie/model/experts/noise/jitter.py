"""Jitter: what the router reads is multiplied by numbers near one.

Fedus, Zoph & Shazeer 2021 (Switch), arXiv:2101.03961, section 2.4 and appendix F. The experts read
the tokens themselves.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from coterie.foundation.settings import Settings
from coterie.model.costs import Count
from coterie.model.experts.noise.interface import NoisePart


class JitterNoise(Settings):
    """Settings of jitter."""

    kind: Literal["jitter"] = "jitter"
    epsilon: float = Field(
        default=0.01, gt=0, lt=1, description="factors are even in 1 − epsilon … 1 + epsilon"
    )

    def counts(self, width: int, experts: int) -> tuple[Count, ...]:
        return ()

    def build(self, width: int, experts: int) -> "JitterNoisePart":
        return JitterNoisePart(self.epsilon)


class JitterNoisePart(NoisePart):
    """x ∘ U(1 − ε, 1 + ε)."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon

    def inputs(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """Return jittered inputs in training mode, the same ones otherwise."""
        if not self.training:
            return x
        return x * torch.empty_like(x).uniform_(1 - self.epsilon, 1 + self.epsilon)
