"""Learned noise: each token and expert has its own spread. "Noisy top-k gating".

Shazeer et al. 2017, arXiv:1701.06538, equation 4: H(x) = x·W_g + N(0, 1) · softplus(x·W_noise),
W_noise begun at zero.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.foundation.settings import Settings
from coterie.model.costs import Count
from coterie.model.experts.noise.interface import NoisePart


class LearnedNoise(Settings):
    """Settings of learned noise."""

    kind: Literal["learned"] = "learned"

    def counts(self, width: int, experts: int) -> tuple[Count, ...]:
        """Return its count: a matrix that multiplies in training alone."""
        return (Count("noise", f"{width} → {experts}, training only", width * experts),)

    def build(self, width: int, experts: int) -> "LearnedNoisePart":
        return LearnedNoisePart(width, experts)


class LearnedNoisePart(NoisePart):
    """logits + N(0, 1) · softplus(x · weightᵀ)."""

    roles = {"weight": "router"}
    initial_std: Mapping[str, float] = {"weight": 0.0}

    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(experts, width))

    def logits(self, logits: Float[Tensor, "N E"], x: Float[Tensor, "N D"]) -> Float[Tensor, "N E"]:
        """Return noisy logits in training mode, the same ones otherwise."""
        if not self.training:
            return logits
        spread = F.softplus(F.linear(x, self.weight.to(x.dtype)))
        return logits + torch.randn_like(logits) * spread
