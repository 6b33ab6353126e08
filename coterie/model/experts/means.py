"""The mean over tokens that count."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def mean_over(x: Float[Tensor, "N ..."], valid: Bool[Tensor, " N"] | None) -> Float[Tensor, "..."]:
    """Return the mean over valid tokens; zero where there is none."""
    if valid is None:
        return x.mean(0) if x.shape[0] else x.sum(0)
    weights = valid.to(x.dtype) / valid.sum().clamp(min=1)
    return torch.tensordot(weights, x, dims=1)
