"""Cross-entropy of each position, without holding more logits than need be.

Logits of a long batch over a large vocabulary are by far the largest tensor of a training step.
Beyond a bound they are computed in slices of rows, and the gradients at once with them, as Hsu et
al. 2024, arXiv:2410.10989 (Liger) do: the gradient of a sum of losses needs no logits then but to
be scaled. Where losses are weighted one by one, logits are computed again in the backward pass.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from coterie.batch import IGNORE

LOGITS_AT_ONCE = 1 << 25
"""Logits computed at once: 128 MiB in float32; as many again for their gradient."""
_ON_CPU = 1 << 23
"""The same on the CPU, where smaller slices were measured to be faster, being read again while they
are in its caches; but at least `_FEWEST` rows, for each slice reads the whole matrix."""
_FEWEST = 128


def cross_entropy(
    hidden: Float[Tensor, "N R"],
    weight: Float[Tensor, "V R"],
    bias: Float[Tensor, " V"] | None,
    targets: Int[Tensor, " N"],
) -> Float[Tensor, " N"]:
    """Return −log softmax(hidden·weightᵀ + bias)[target], in nats and at least float32.

    Args:
        hidden: of N positions.
        targets: the tokens to predict; where it is `IGNORE` the result is 0.
    """
    rows = max(LOGITS_AT_ONCE // weight.shape[0], 1)
    if hidden.device.type == "cpu" and not torch.compiler.is_compiling():
        rows = max(_ON_CPU // weight.shape[0], min(_FEWEST, rows))
    if hidden.shape[0] <= rows:
        return _slice_losses(hidden, weight, bias, targets)
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        kind = torch.get_autocast_dtype(device)
        hidden, weight = hidden.to(kind), weight.to(kind)
        bias = None if bias is None else bias.to(kind)
    with torch.autocast(device, enabled=False):
        learns = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
        if torch.compiler.is_compiling() or not learns:
            slices = zip(hidden.split(rows), targets.split(rows), strict=True)
            again = _checkpointed if learns else _slice_losses
            return torch.cat([again(some, weight, bias, theirs) for some, theirs in slices])
        return _Sliced.apply(hidden, weight, bias, targets, rows)  # type: ignore[no-any-return]


def _slice_losses(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    return of_logits(F.linear(hidden, weight, bias), targets)


def of_logits(logits: Float[Tensor, "N V"], targets: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Return −log softmax(logits)[target], in nats and at least float32; 0 at `IGNORE`."""
    if logits.dtype not in (torch.float32, torch.float64):
        logits = logits.float()
    return F.cross_entropy(logits, targets, reduction="none", ignore_index=IGNORE)


def _checkpointed(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    return checkpoint(_slice_losses, hidden, weight, bias, targets, use_reentrant=False)  # type: ignore[no-any-return]


class _Sliced(torch.autograd.Function):
    """The losses of all slices, and the gradients of their sum.

    With p = softmax(z): dz = p − onehot(target), dh = dz·W, dW = dzᵀ·h, db = Σ dz.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, rows: int
    ) -> Tensor:
        exact = torch.promote_types(hidden.dtype, torch.float32)
        of_hidden, of_weight = torch.empty_like(hidden), torch.zeros_like(weight, dtype=exact)
        of_bias = None if bias is None else torch.zeros_like(bias, dtype=exact)
        losses = hidden.new_empty(targets.shape, dtype=exact)
        for start in range(0, len(targets), rows):
            part = slice(start, start + rows)
            some, goals = hidden[part], targets[part, None]
            slope = F.linear(some, weight, bias).log_softmax(-1, exact)
            valid, goals = goals != IGNORE, goals.clamp(min=0)
            losses[part] = slope.gather(1, goals).neg_().where(valid, 0)[:, 0]
            slope.exp_().scatter_add_(1, goals, slope.new_full((1, 1), -1).expand_as(goals))
            slope, valid = slope.to(hidden.dtype), valid.to(hidden.dtype)
            if of_bias is not None:
                of_bias += (slope.mT @ valid)[:, 0]
            torch.mul(slope @ weight, valid, out=of_hidden[part])
            some = some * valid
            if of_weight.dtype == slope.dtype:
                of_weight.addmm_(slope.mT, some)
            else:
                of_weight += slope.mT @ some
        ctx.save_for_backward(hidden, weight, bias, targets, of_hidden, of_weight, of_bias)
        ctx.rows = rows
        return losses

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, of_hidden, of_weight, of_bias = ctx.saved_tensors
        slope = gradients[0]
        if slope.stride(0):  # each loss has a weight of its own
            return (*_gradients(hidden, weight, bias, targets, slope, ctx.rows), None, None)
        scale = slope[0]
        return (
            (of_hidden * scale).to(hidden.dtype),
            (of_weight * scale).to(weight.dtype),
            None if of_bias is None else (of_bias * scale).to(bias.dtype),
            None,
            None,
        )


def _gradients(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, slope: Tensor, rows: int
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the gradients of hidden states, matrix and bias, logits computed again."""
    head = weight.detach().requires_grad_()
    shift = None if bias is None else bias.detach().requires_grad_()
    parts = []
    for some, goals, each in zip(
        hidden.split(rows), targets.split(rows), slope.split(rows), strict=True
    ):
        part = some.detach().requires_grad_()
        with torch.enable_grad():
            _slice_losses(part, head, shift, goals).backward(each)
        assert part.grad is not None
        parts.append(part.grad)
    return torch.cat(parts), head.grad, None if shift is None else shift.grad
