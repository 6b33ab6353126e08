"""Normalisation: a closed union."""

from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.foundation.settings import Settings, union
from coterie.model.costs import Count
from coterie.model.part import Part


class LayerNorm(Settings):
    """LayerNorm: each token's vector moved to mean 0 and variance 1, then scaled and shifted.

    Ba, Kiros & Hinton 2016, arXiv:1607.06450: y = (x − mean(x)) / sqrt(var(x) + ε) · g + b.
    """

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


class RMSNorm(Settings):
    """RMSNorm: each token's vector divided by its root mean square, then scaled.

    Zhang & Sennrich 2019, arXiv:1910.07467: y = x / sqrt(mean(x²) + ε) · g. torch composes it of
    many small operations on the CPU; here its derivative is written out, which takes a third of the
    time.
    """

    kind: Literal["rms"] = "rms"
    epsilon: float = Field(default=1e-6, gt=0, description="added to the mean square")
    scale: bool = Field(default=True, description="multiply by a learned vector")

    def build(self, width: int) -> "RMSNormPart":
        return RMSNormPart(self, width)

    def counts(self, name: str, width: int) -> Count:
        size = width * self.scale
        return Count(name, self.kind, size, size)


class RMSNormPart(Part):
    """RMSNorm over the last dimension; computed in at least float32."""

    roles = {"weight": "norm"}

    def __init__(self, settings: RMSNorm, width: int) -> None:
        super().__init__()
        self.epsilon = settings.epsilon
        self.weight = nn.Parameter(torch.empty(width)) if settings.scale else None

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """Normalise each vector; under autocast the result is float32, as the scale is."""
        if self.weight is not None and x.dtype != self.weight.dtype:
            x = x.to(torch.promote_types(x.dtype, self.weight.dtype))
        if x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64):
            return _RootMeanSquare.apply(x, self.weight, self.epsilon)  # type: ignore[no-any-return]
        return F.rms_norm(x, x.shape[-1:], self.weight, self.epsilon)


class _RootMeanSquare(torch.autograd.Function):
    """RMSNorm with its derivative written out, in few passes over memory.

    With r = 1 / sqrt(mean(x²) + ε): dx = r·g∘w − x·r³·⟨g∘w, x⟩ / D and dw = Σ g∘x·r.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, epsilon: float) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = torch.rsqrt(length * length / x.shape[-1] + epsilon)
        ctx.save_for_backward(x, weight, inverse)
        return x * inverse if weight is None else (x * inverse).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, weight, inverse = ctx.saved_tensors
        width = x.shape[-1]
        product = (gradients[0] * x).reshape(-1, width)
        gradient = gradients[0]
        grad_weight = None
        if weight is None:
            inner = product.sum(-1)
        else:
            grad_weight = torch.mv(product.mT, inverse.reshape(-1))
            inner = torch.mv(product, weight)
            gradient = gradient * weight
        slope = (inner.view_as(inverse) * inverse * inverse).div_(-width)
        grad_x = torch.addcmul(gradient, x, slope).mul_(inverse)
        return grad_x, grad_weight, None


Norm = Annotated[RMSNorm | LayerNorm, union(RMSNorm, LayerNorm)]
