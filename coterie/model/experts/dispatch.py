"""Dispatch and combine: tokens in the order of their experts, and back.

Every (token, expert) pair is a row. Rows are sorted by expert, stably, so that each expert's rows
are one slice. Both ways are pure permutations with written derivatives: gathering by the inverse
permutation, reshaping and summing gives the same bits every time, where scattered additions do not.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Dispatch(NamedTuple):
    """Where each row goes.

    Attributes:
        order: row of the [N·k] pairs at each place of the sorted rows.
        inverse: place of each pair among the sorted rows.
        counts: rows of each expert, [E].
    """

    order: Tensor
    inverse: Tensor
    counts: Tensor


def plan_dispatch(indices: Int[Tensor, "N k"], experts: int) -> Dispatch:
    """Return how rows are sorted by expert."""
    pairs = indices.reshape(-1)
    order = pairs.argsort(stable=True)
    places = torch.arange(pairs.shape[0], device=pairs.device)
    inverse = torch.empty_like(order).scatter_(0, order, places)
    return Dispatch(order, inverse, count_pairs(indices, experts))


def count_pairs(
    indices: Int[Tensor, "N k"], experts: int, valid: Tensor | None = None
) -> Int[Tensor, " E"]:
    """Return how many pairs go to each expert, of valid tokens [N] alone if they are given."""
    pairs = indices.reshape(-1)
    if valid is None:
        ones = torch.ones_like(pairs)
    else:
        ones = valid.reshape(-1, 1).expand(indices.shape).reshape(-1).to(pairs.dtype)
    return pairs.new_zeros(experts).scatter_add_(0, pairs, ones)


def spread(x: Float[Tensor, "N D"], dispatch: Dispatch) -> Float[Tensor, "rows D"]:
    """Return the tokens as rows sorted by expert."""
    return _Spread.apply(x, dispatch.order, dispatch.inverse)  # type: ignore[no-any-return]


def combine(
    rows: Float[Tensor, "rows D"], gates: Float[Tensor, "N k"], dispatch: Dispatch
) -> Float[Tensor, "N D"]:
    """Return each token's sum of its experts' outputs, each multiplied by its gate."""
    gates = gates.to(rows.dtype)
    return _Combine.apply(rows, gates, dispatch.order, dispatch.inverse)  # type: ignore[no-any-return]


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        ctx.tokens = x.shape[0]
        per_token = order.shape[0] // x.shape[0]
        return x.index_select(0, order if per_token == 1 else order // per_token)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        gradient = gradients[0].index_select(0, inverse).view(ctx.tokens, -1, gradients[0].shape[1])
        return gradient[:, 0] if gradient.shape[1] == 1 else gradient.sum(1), None, None


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, gates: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(rows, gates, order, inverse)
        tokens, per_token = gates.shape
        picked = rows.index_select(0, inverse).view(tokens, per_token, -1)
        picked.mul_(gates[..., None])
        return picked[:, 0] if per_token == 1 else picked.sum(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        rows, gates, order, inverse = ctx.saved_tensors
        per_token = gates.shape[1]
        spread_out = gradients[0].index_select(0, order if per_token == 1 else order // per_token)
        grad_gates = torch.linalg.vecdot(rows, spread_out).index_select(0, inverse)
        weights = gates.reshape(-1).index_select(0, order)
        return spread_out.mul_(weights[:, None]), grad_gates.view_as(gates), None, None
