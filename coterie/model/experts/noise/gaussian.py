"""Gaussian noise of a fixed spread on the router's logits."""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from coterie.foundation.settings import Settings
from coterie.model.costs import Count
from coterie.model.experts.noise.interface import NoisePart


class GaussianNoise(Settings):
    """Settings of Gaussian noise."""

    kind: Literal["gaussian"] = "gaussian"
    std: float = Field(default=1.0, gt=0, description="standard deviation, in logits")

    def counts(self, width: int, experts: int) -> tuple[Count, ...]:
        return ()

    def build(self, width: int, experts: int) -> "GaussianNoisePart":
        return GaussianNoisePart(self.std)


class GaussianNoisePart(NoisePart):
    """logits + std · N(0, 1)."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def logits(self, logits: Float[Tensor, "N E"], x: Float[Tensor, "N D"]) -> Float[Tensor, "N E"]:
        """Return noisy logits in training mode, the same ones otherwise."""
        return logits + self.std * torch.randn_like(logits) if self.training else logits
