"""Dispatch and combine: tokens in the order of their experts, and back.

Every (token, expert) pair is a row. Rows are sorted by expert, stably, so that each expert's rows
are one slice; pairs without an expert become no rows at all. Both ways are pure permutations with
written derivatives: gathering by the inverse permutation, reshaping and summing gives the same bits
every time, where scattered additions do not.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Dispatch(NamedTuple):
    """Where each row goes.

    Attributes:
        order: row of the [N·k] pairs at each place of the sorted rows.
        inverse: place of each pair among the sorted rows.
        counts: rows of each expert, [E].
        per_token: pairs of each token, k.
        missing: which pairs have no expert, [N·k]; None: each has one.
    """

    order: Tensor
    inverse: Tensor
    counts: Tensor
    per_token: int
    missing: Tensor | None


def plan_dispatch(indices: Int[Tensor, "N k"], experts: int, *, partial: bool = False) -> Dispatch:
    """Return how rows are sorted by expert.

    Args:
        indices: the experts of each token.
        experts: how many there are, E.
        partial: whether indices may hold E, which stands for no expert.
    """
    pairs = indices.reshape(-1)
    order = pairs.argsort(stable=True)
    places = torch.arange(pairs.shape[0], device=pairs.device)
    inverse = torch.empty_like(order).scatter_(0, order, places)
    counts = count_pairs(indices, experts)
    if not partial:
        return Dispatch(order, inverse, counts, indices.shape[1], None)
    rows = int(counts.sum())
    missing = pairs == experts  # sorted behind all others
    inverse = inverse.masked_fill(missing, 0)
    return Dispatch(order[:rows], inverse, counts, indices.shape[1], missing)


def count_pairs(
    indices: Int[Tensor, "N k"], experts: int, valid: Bool[Tensor, " N"] | None = None
) -> Int[Tensor, " E"]:
    """Return how many pairs go to each expert, of valid tokens alone if those are given."""
    pairs = indices.reshape(-1)
    if valid is None:
        ones = torch.ones_like(pairs)
    else:
        ones = valid.reshape(-1, 1).expand(indices.shape).reshape(-1).to(pairs.dtype)
    return pairs.new_zeros(experts + 1).scatter_add_(0, pairs, ones)[:experts]


def spread(x: Float[Tensor, "N D"], dispatch: Dispatch) -> Float[Tensor, "rows D"]:
    """Return the tokens as rows sorted by expert."""
    return _Spread.apply(  # type: ignore[no-any-return]
        x, dispatch.order, dispatch.inverse, dispatch.missing, dispatch.per_token
    )


def combine(
    rows: Float[Tensor, "rows D"], gates: Float[Tensor, "N k"], dispatch: Dispatch
) -> Float[Tensor, "N D"]:
    """Return each token's sum of its experts' outputs, each multiplied by its gate."""
    if rows.shape[0] == 0:  # no token found an expert
        return rows.new_zeros(gates.shape[0], rows.shape[1]) + 0.0 * (rows.sum() + gates.sum())
    return _Combine.apply(  # type: ignore[no-any-return]
        rows, gates.to(rows.dtype), dispatch.order, dispatch.inverse, dispatch.missing
    )


def _tokens_of(pairs: Tensor, per_token: int) -> Tensor:
    return pairs if per_token == 1 else pairs // per_token


def _back(rows: Tensor, inverse: Tensor, missing: Tensor | None) -> Tensor:
    """Return rows [R, ...] as pairs [N·k, ...], zero where there is no expert."""
    picked = rows.index_select(0, inverse)
    if missing is not None:
        picked.masked_fill_(missing.view(-1, *[1] * (rows.ndim - 1)), 0.0)
    return picked


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        order: Tensor,
        inverse: Tensor,
        missing: Tensor | None,
        per_token: int,
    ) -> Tensor:
        ctx.save_for_backward(inverse, missing)
        ctx.shape = (x.shape[0], per_token)
        return x.index_select(0, _tokens_of(order, per_token))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        inverse, missing = ctx.saved_tensors
        (rows,), (tokens, per_token) = gradients, ctx.shape
        if rows.shape[0] == 0:
            return rows.new_zeros(tokens, rows.shape[1]), None, None, None, None
        gradient = _back(rows, inverse, missing).view(tokens, per_token, -1)
        gradient = gradient[:, 0] if per_token == 1 else gradient.sum(1)
        return gradient, None, None, None, None


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        gates: Tensor,
        order: Tensor,
        inverse: Tensor,
        missing: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(rows, gates, order, inverse, missing)
        tokens, per_token = gates.shape
        picked = _back(rows, inverse, missing).view(tokens, per_token, -1)
        picked.mul_(gates[..., None])
        return picked[:, 0] if per_token == 1 else picked.sum(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        rows, gates, order, inverse, missing = ctx.saved_tensors
        per_token = gates.shape[1]
        spread_out = gradients[0].index_select(0, _tokens_of(order, per_token))
        grad_gates = _back(torch.linalg.vecdot(rows, spread_out), inverse, missing)
        weights = gates.reshape(-1).index_select(0, order)
        return spread_out.mul_(weights[:, None]), grad_gates.view_as(gates), None, None, None
