"""Cross-entropy of each position, without holding more logits than need be.

Logits of a long batch over a large vocabulary are by far the largest tensor of a training step.
Beyond a bound they are computed in slices of rows, and again in the backward pass.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from coterie.batch import IGNORE

LOGITS_AT_ONCE = 1 << 25
"""Logits computed at once: 128 MiB in float32; as many again for their gradient."""


def cross_entropy(
    hidden: Float[Tensor, "N R"],
    weight: Float[Tensor, "V R"],
    bias: Float[Tensor, " V"] | None,
    targets: Int[Tensor, " N"],
) -> Float[Tensor, " N"]:
    """Return −log softmax(hidden·weightᵀ + bias)[target], in nats and at least float32.

    Args:
        hidden: of N positions.
        weight: of the head.
        bias: of the head.
        targets: the tokens to predict; where it is `IGNORE` the result is 0.
    """
    rows = max(LOGITS_AT_ONCE // weight.shape[0], 1)
    if hidden.shape[0] <= rows:
        return _slice_losses(hidden, weight, bias, targets)
    losses = []
    for some, their_targets in zip(hidden.split(rows), targets.split(rows), strict=True):
        if torch.is_grad_enabled():
            losses.append(
                checkpoint(_slice_losses, some, weight, bias, their_targets, use_reentrant=False)
            )
        else:
            losses.append(_slice_losses(some, weight, bias, their_targets))
    return torch.cat(losses)


def _slice_losses(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    logits = F.linear(hidden, weight, bias)
    if logits.dtype not in (torch.float32, torch.float64):
        logits = logits.float()
    return F.cross_entropy(logits, targets, reduction="none", ignore_index=IGNORE)
