"""LayerNorm: each token's vector moved to mean 0 and variance 1, then scaled and shifted.

Ba, Kiros & Hinton 2016, arXiv:1607.06450: y = (x − mean(x)) / sqrt(var(x) + ε) · g + b.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.foundation.settings import Settings
from coterie.model.costs import Count
from coterie.model.part import Part


class LayerNorm(Settings):
    """Settings of LayerNorm."""

    kind: Literal["layer"] = "layer"
    epsilon: float = Field(default=1e-5, gt=0, description="added to the variance")
    scale: bool = Field(default=True, description="multiply by a learned vector")
    bias: bool = Field(default=True, description="add a learned vector; only where `scale` is on")

    def build(self, width: int) -> "LayerNormPart":
        return LayerNormPart(self, width)

    def counts(self, name: str, width: int) -> Count:
        size = width * (self.scale + (self.scale and self.bias))
        return Count(name, self.kind, size, size)


class LayerNormPart(Part):
    """LayerNorm over the last dimension, by torch's fused kernel."""

    roles = {"weight": "norm", "bias": "bias"}

    def __init__(self, settings: LayerNorm, width: int) -> None:
        super().__init__()
        self.epsilon = settings.epsilon
        self.weight = nn.Parameter(torch.empty(width)) if settings.scale else None
        with_bias = settings.scale and settings.bias
        self.bias = nn.Parameter(torch.empty(width)) if with_bias else None

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.epsilon)
