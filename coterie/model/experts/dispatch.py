"""Dispatch and combine: tokens in the order of their experts, and back.

Every (token, expert) pair is a row. Rows are sorted by expert, stably, so that each expert's rows
are one slice; pairs without an expert become no rows at all, or off the CPU the last ones, which no
kernel computes and nobody reads. Both ways are pure permutations with
written derivatives: gathering by the inverse permutation and summing gives the same bits every
time, where scattered additions do not.

On a CPU gathering, weighing and summing are one pass: `embedding_bag` over the rows. Between two
2,048 × 8 × 512 it takes 2.9 ms where three operations take 27, most of it for the pages of what
they hold in between (two x86 cores, float32). Compilers write such passes themselves.

A layer's `dispatcher` may be replaced from outside by one that sends rows to other devices.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

_ROWS_AT_ONCE = 1024


class Dispatched(NamedTuple):
    """Rows on their way through the experts.

    Attributes:
        rows: sorted by expert, [rows, D].
        counts: rows of each expert that is here, [E].
        route: how the rows go back; known to their dispatcher alone.
    """

    rows: Tensor
    counts: Tensor
    route: Any


@runtime_checkable
class Dispatcher(Protocol):
    """Brings tokens to their experts and the experts' outputs back to the tokens.

    Attributes:
        local: whether every expert is on this device, so that a kernel may do without dispatch.
    """

    local: bool

    def dispatch(
        self, x: Float[Tensor, "N D"], indices: Int[Tensor, "N k"], *, partial: bool
    ) -> Dispatched:
        """Return the rows that the experts on this device compute.

        Args:
            indices: the experts of each; the number of experts stands for none.
            partial: whether indices may name none.
        """
        ...

    def combine(
        self, outputs: Float[Tensor, "rows D"], gates: Float[Tensor, "N k"], route: Any
    ) -> Float[Tensor, "N D"]:
        """Return each token's sum of its experts' outputs, each multiplied by its gate."""
        ...


class LocalDispatcher:
    """Sorts tokens on one device that holds all experts."""

    local = True

    def __init__(self, num_experts: int) -> None:
        self.num_experts = num_experts

    def dispatch(
        self, x: Float[Tensor, "N D"], indices: Int[Tensor, "N k"], *, partial: bool
    ) -> Dispatched:
        """Return all pairs as rows sorted by expert."""
        permutation, counts = sort_pairs(indices, self.num_experts, partial=partial)
        rows = _Permute.apply(x, *permutation, indices.shape[1])
        return Dispatched(rows, counts, permutation)  # type: ignore[arg-type]

    def combine(
        self, outputs: Float[Tensor, "rows D"], gates: Float[Tensor, "N k"], route: "Permutation"
    ) -> Float[Tensor, "N D"]:
        """Return each token's weighted sum."""
        if outputs.shape[0] == 0:  # no token found an expert
            empty = outputs.new_zeros(gates.shape[0], outputs.shape[1])
            return empty + 0.0 * (outputs.sum() + gates.sum())
        return _Combine.apply(outputs, gates.to(outputs.dtype), *route)  # type: ignore[no-any-return]


class Permutation(NamedTuple):
    """Where each row comes from and goes to.

    Attributes:
        order: which of the [N·k] pairs stands at each place of the sorted rows.
        inverse: place of each pair among the sorted rows.
        missing: which pairs have no expert, [N·k]; None: each has one.
    """

    order: Tensor
    inverse: Tensor
    missing: Tensor | None


def sort_pairs(
    indices: Int[Tensor, "N k"], experts: int, *, partial: bool
) -> tuple[Permutation, Int[Tensor, " E"]]:
    """Return how pairs are sorted by expert, and how many go to each."""
    pairs = indices.reshape(-1)
    order = pairs.argsort(stable=True)
    places = torch.arange(pairs.shape[0], device=pairs.device)
    inverse = torch.empty_like(order).scatter_(0, order, places)
    counts = count_pairs(indices, experts)
    if not partial:
        return Permutation(order, inverse, None), counts
    missing = pairs == experts  # sorted behind all others
    if knows_counts(pairs):
        order = order[: int(counts.sum())]
    return Permutation(order, inverse.masked_fill(missing, 0), missing), counts


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


def knows_counts(x: Tensor) -> bool:
    """Whether the host may ask how many rows there are; elsewhere that means waiting."""
    return x.device.type == "cpu"


def _tokens_of(pairs: Tensor, per_token: int) -> Tensor:
    return pairs if per_token == 1 else pairs // per_token


def unsort(rows: Tensor, inverse: Tensor, missing: Tensor | None) -> Tensor:
    """Return rows [R, ...] as pairs [N·k, ...], zero where there is no expert."""
    picked = rows.index_select(0, inverse)
    if missing is not None:
        picked.masked_fill_(missing.view(-1, *[1] * (rows.ndim - 1)), 0.0)
    return picked


def sum_of_pairs(
    rows: Tensor, gates: Tensor | None, inverse: Tensor, missing: Tensor | None, shape: Any
) -> Tensor:
    """Return for each token the sum of its pairs' rows, weighted if gates are given, [N, D].

    Args:
        rows: sorted by expert.
        gates: of each pair, [N, k].
        inverse: place of each pair among the rows.
        missing: which pairs have no expert.
        shape: N and k.
    """
    tokens, per_token = shape
    if missing is None and _is_host(rows) and tokens:
        return F.embedding_bag(
            inverse.view(tokens, per_token), rows, mode="sum", per_sample_weights=gates
        )
    picked = unsort(rows, inverse, missing).view(tokens, per_token, -1)
    if gates is not None:
        picked.mul_(gates[..., None])
    # Autocast on CUDA would sum in float32, and half the gradients would come back as such.
    return picked[:, 0] if per_token == 1 else picked.sum(1, dtype=picked.dtype)


def _is_host(rows: Tensor) -> bool:
    """Whether rows are where a pass costs less the less it holds, and no compiler fuses passes."""
    return rows.device.type == "cpu" and not torch.compiler.is_compiling()


class _Permute(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, order: Tensor, inverse: Tensor, missing: Tensor | None, per_token: int
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
        gradient = sum_of_pairs(rows, None, inverse, missing, (tokens, per_token))
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
        return sum_of_pairs(rows, gates, inverse, missing, gates.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        rows, gates, order, inverse, missing = ctx.saved_tensors
        per_token, order = gates.shape[1], order[: rows.shape[0]]
        gradient, tokens = gradients[0].to(rows.dtype), _tokens_of(order, per_token)
        weights = gates.reshape(-1).index_select(0, order)
        if _is_host(rows):
            sorted_gradient, products = _weighed_by_slices(gradient, rows, tokens, weights)
        else:
            sorted_gradient = gradient.index_select(0, tokens)
            products = torch.linalg.vecdot(rows, sorted_gradient)
            sorted_gradient.mul_(weights[:, None])
        grad_gates = unsort(products, inverse, missing)
        return sorted_gradient, grad_gates.view_as(gates), None, None, None


def _weighed_by_slices(
    gradient: Tensor, rows: Tensor, tokens: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Return gradient[tokens]·weights and gradient[tokens]·rows, slices of rows at a time.

    A slice stays in the cache from one operation to the next.
    """
    sorted_gradient, products = torch.empty_like(rows), rows.new_empty(rows.shape[0])
    for start in range(0, rows.shape[0], _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE)
        part = sorted_gradient[some]
        torch.index_select(gradient, 0, tokens[some], out=part)
        torch.linalg.vecdot(rows[some], part, out=products[some])
        part.mul_(weights[some, None])
    return sorted_gradient, products
