"""The product of two shares that balance losses are made of, over a batch or over each sequence.

E · Σ_e f_e·P_e: f_e is expert e's share of the selected pairs, P_e the mean of the router's shares
for it. Even routing gives 1. The gradient goes through P alone.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from coterie.model.experts.balance.interface import BalanceInputs
from coterie.model.experts.means import mean_over


def batch_product(inputs: BalanceInputs) -> Float[Tensor, ""]:
    """Return the product over all valid tokens: Fedus et al. 2021, arXiv:2101.03961, equation 4."""
    valid = None if inputs.valid is None else inputs.valid.flatten()
    mean = mean_over(inputs.probabilities.flatten(0, 1), valid)
    share = inputs.load / inputs.load.sum().clamp(min=1)
    return mean.shape[0] * (share.to(mean) @ mean)


def sequence_product(inputs: BalanceInputs) -> Float[Tensor, ""]:
    """Return the mean of each sequence's own product: DeepSeek-V3, arXiv:2412.19437, eq. 17–20.

    Sequences are weighted by their valid tokens, which makes no difference where all are full and
    gives the same sum however a batch is cut into micro-batches.
    """
    probabilities, indices, valid, _ = inputs
    experts = probabilities.shape[-1]
    chosen = F.one_hot(indices, experts + 1)[..., :experts].sum(-2).to(probabilities)  # [B, T, E]
    if valid is None:
        weights = probabilities.new_ones(probabilities.shape[:2])
    else:
        weights = valid.to(probabilities)
    tokens = weights.sum(1)  # [B]
    counts = torch.einsum("bt,bte->be", weights, chosen)
    share = counts / counts.sum(-1, keepdim=True).clamp(min=1)
    mean = torch.einsum("bt,bte->be", weights, probabilities) / tokens.clamp(min=1)[:, None]
    products = experts * torch.linalg.vecdot(share, mean)
    return (products * tokens).sum() / tokens.sum().clamp(min=1)
