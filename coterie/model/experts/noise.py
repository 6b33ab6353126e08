"""Router noise: random in training, so that other experts get a try; a closed union.

A noise may change what the router reads (`inputs`) or its logits (`logits`), in training mode
alone. Chance comes from torch's global generator of the device, which recomputation winds back, so
that the second pass of a block sees the same noise.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.foundation.settings import Settings, union
from coterie.model.costs import Count
from coterie.model.part import Part


class NoisePart(Part):
    """No noise; each kind overrides what it needs and does nothing outside training mode."""

    def inputs(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """Return what the router reads instead of the tokens."""
        return x

    def logits(self, logits: Float[Tensor, "N E"], x: Float[Tensor, "N D"]) -> Float[Tensor, "N E"]:
        """Return the logits that scores are made of.

        Args:
            x: the tokens, in the type of the logits.
        """
        return logits


class NoNoise(Settings):
    """No noise: the same token always goes the same way."""

    kind: Literal["none"] = "none"

    def counts(self, width: int, experts: int) -> tuple[Count, ...]:
        return ()

    def build(self, width: int, experts: int) -> NoisePart:
        """Return a module that does nothing."""
        return NoisePart()


class LearnedNoise(Settings):
    """Learned noise: each token and expert has its own spread. "Noisy top-k gating".

    Shazeer et al. 2017, arXiv:1701.06538, equation 4: H(x) = x·W_g + N(0, 1) · softplus(x·W_noise),
    W_noise begun at zero.
    """

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


class GaussianNoise(Settings):
    """Gaussian noise of a fixed spread on the router's logits."""

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


class JitterNoise(Settings):
    """Jitter: what the router reads is multiplied by numbers near one.

    Fedus, Zoph & Shazeer 2021 (Switch), arXiv:2101.03961, section 2.4 and appendix F. The experts
    read the tokens themselves.
    """

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


Noise = Annotated[
    NoNoise | LearnedNoise | GaussianNoise | JitterNoise,
    union(NoNoise, LearnedNoise, GaussianNoise, JitterNoise),
]
