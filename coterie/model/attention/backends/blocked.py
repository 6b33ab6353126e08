"""Block by block: a tile of queries at a time against the only keys that any of them can see.

What a tile needs is asked of the mask (`Mask.ranges`), so a window costs T · (w + tile), sinks add
a few keys, block-sparse patterns skip absent blocks and packed documents do not meet. Nothing of
size T · S ever exists: the weights of a tile are computed again in the backward pass, as Dao et al.
2022, arXiv:2205.14135 (FlashAttention) do. On the CPU torch's own fused kernel computes each tile,
with the tile's mask; elsewhere, and where weights are dropped, plain products do.
"""

from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from coterie.model.attention.backends.dense import hiding
from coterie.model.attention.backends.interface import (
    BackendFunction,
    BackendSettings,
    Call,
    of_equal_channels,
)
from coterie.model.attention.mask import Mask, Range, merged
from coterie.model.geometry import Geometry

_TILE = 128
"""Queries of a tile; half as many where the fused kernel serves and that was measured to be faster:
where a query sees fewer than `_WIDE` keys, and the heads of all rows have `_ENOUGH` channels, so
that the smaller tiles gain more than their calls cost."""
_WIDE = 512
_ENOUGH = 512
_REMEMBERED = 1 << 18
"""Masks of tiles of up to so many elements are kept for the next call, 64 of them."""


class BlockedBackend(BackendSettings):
    """Settings of the blocked back end."""

    kind: Literal["blocked"] = "blocked"

    def build(self) -> "BlockedFunction":
        return _FUNCTION


class BlockedFunction(BackendFunction):
    """Tile by tile, with a derivative that keeps no scores."""

    def scores(self, call: Call) -> int:
        """Return how many scores are held at once: those of a tile."""
        largest = max(tile.queries * tile.keys for tile in Plan(call).tiles)
        return call.query.shape[0] * call.query.shape[1] * largest

    def plan(self, call: Call) -> "Plan":
        """Return which keys each tile needs, without computing anything."""
        return Plan(call)

    def compute(self, plan: "Plan") -> Float[Tensor, "B H T E"]:
        call = plan.call
        if not plan.fused:
            return _Blocked.apply(call.query, call.keys, call.values, plan)  # type: ignore[no-any-return]
        inputs, channels = of_equal_channels(call), call.values.shape[3]
        out: Tensor = _Blocked.apply(*inputs, plan)
        return out if out.shape[3] == channels else out[..., :channels]

    def __call__(self, call: Call) -> Float[Tensor, "B H T E"]:
        return self.compute(Plan(call))


_FUNCTION = BlockedFunction()


Sizes = tuple[int, int, int, int]
"""How many queries and keys, how many of the keys are sinks, and where the others begin."""


class _Tile(NamedTuple):
    """Queries from `start` to `stop` and the ranges of keys for them, as places in the tensors."""

    start: int
    stop: int
    pieces: tuple[Range, ...]

    @property
    def queries(self) -> int:
        return self.stop - self.start

    @property
    def keys(self) -> int:
        return sum(stop - start for start, stop in self.pieces)


class Plan:
    """The tiles of a call and their masks.

    Attributes:
        fused: whether the CPU's fused kernel computes them.
        groups: how many heads' queries are laid below each other; the fused kernel knows groups.
    """

    def __init__(self, call: Call) -> None:
        where = call.geometry
        batch, heads, _, channels = call.query.shape
        self.call = call
        self.fused = call.query.device.type == "cpu" and not call.dropout
        self.groups = 1 if self.fused else call.groups
        seen = min(call.mask.window or where.num_keys, where.num_keys)
        small = self.fused and seen < _WIDE and batch * heads * channels >= _ENOUGH
        small = small and call.query.dtype.itemsize >= 4
        step = call.mask.tile(_TILE // 2 if small else _TILE)
        if where.per_row:
            cuts = _cuts(where.num_queries, where.num_queries, step)
            self.tiles = [_Tile(a, b, self._documents(a, b)) for a, b in pairwise(cuts)]
        else:
            self.tiles = _tiles(call.mask, self._sizes, step)

    @property
    def _sizes(self) -> Sizes:
        where = self.call.geometry
        return where.num_queries, where.num_keys, where.num_sinks, where.start_position

    @property
    def share(self) -> float:
        """The share of all pairs of queries and keys that the tiles look at."""
        pairs = sum(tile.queries * tile.keys for tile in self.tiles)
        return pairs / (self.call.query.shape[2] * self.call.keys.shape[2])

    def _documents(self, start: int, stop: int) -> tuple[Range, ...]:
        """Return the keys of the documents of some queries in packed rows."""
        starts, mask = self.call.geometry.starts, self.call.mask
        if starts is None:  # rows need different keys; all are looked at
            return ((0, self.call.geometry.num_keys),)
        compiling = torch.compiler.is_compiling()  # sizes must not follow from values then
        begins = [0] if compiling else starts[:, start:stop].unique().tolist()
        low = begins[0]
        if mask.sparse is not None:
            return ((low, stop),)  # patterns count from each document's start
        window = low if mask.window is None else max(low, start - mask.window + 1)
        if mask.sinks and compiling:
            window = low
        sinks = [(begin, min(begin + mask.sinks, stop)) for begin in begins if mask.sinks]
        return tuple(merged([*sinks, (window, stop)]))

    def bias(self, tile: _Tile) -> Tensor:
        """Return the additive mask of a tile's rows: [G · t, n], or [B, G · t, n]."""
        call, where = self.call, self.call.geometry
        kind = (self.groups, call.query.dtype, call.query.device)
        size = self.groups * tile.queries * tile.keys
        if where.per_row or size > _REMEMBERED or torch.compiler.is_compiling():
            return _bias(call.mask, where, tile, *kind)
        sizes = self._sizes
        if call.mask.relative and not where.num_sinks:  # every tile of these distances has the same
            first = tile.pieces[0][0]
            pieces = tuple((start - first, stop - first) for start, stop in tile.pieces)
            sizes = (tile.queries, pieces[-1][1], 0, 0)
            tile = _Tile(0, tile.queries, pieces)
        return _remembered(call.mask, sizes, tile, *kind)

    def causal(self, tile: _Tile) -> bool:
        """Whether a tile's keys are its own positions, so that the kernel may skip the future."""
        own = len(tile.pieces) == 1 and tile.keys == tile.queries
        return own and not self.call.geometry.ragged

    def rows(self, tile: _Tile, each: Tensor) -> Tensor:
        """Return a tile's part of the queries or of their like, [B, K, G · t, C]."""
        part = each.narrow(2, tile.start, tile.queries)
        return part if self.groups == 1 else part.unflatten(1, (-1, self.groups)).flatten(2, 3)

    def put(self, tile: _Tile, whole: Tensor, rows: Tensor) -> None:
        part = rows if self.groups == 1 else rows.unflatten(2, (self.groups, -1)).flatten(1, 2)
        whole.narrow(2, tile.start, tile.queries).copy_(part)


def _cuts(queries: int, stop: int, step: int) -> list[int]:
    """Return where tiles begin and end: where blocks of the mask do, so that each needs few."""
    return [0, *range(step - (stop - queries) % step, queries, step), queries]


@lru_cache(maxsize=256)
def _tiles(mask: Mask, sizes: Sizes, step: int) -> list[_Tile]:
    """Return the tiles of rows of one text each."""
    queries, keys, sinks, first = sizes
    shift, tiles = first - sinks, []
    earlier = keys + shift - queries
    for start, stop in pairwise(_cuts(queries, keys + shift, step)):
        ranges = mask.ranges(start + earlier, stop + earlier)
        found = [(a, min(b, sinks)) for a, b in ranges]  # places, as far as keys were given
        found += [(max(a, first) - shift, b - shift) for a, b in ranges]
        tiles.append(_Tile(start, stop, tuple(merged(found))))
    return tiles


def _bias(
    mask: Mask, where: Geometry, tile: _Tile, groups: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    places = _joined([torch.arange(a, b, device=device) for a, b in tile.pieces], 0)
    seen = where.visible(mask, device, slice(tile.start, tile.stop), places)
    bias = hiding(seen, dtype)
    return bias if groups == 1 else torch.cat([bias] * groups, -2)


@lru_cache(maxsize=64)
def _remembered(
    mask: Mask, sizes: Sizes, tile: _Tile, groups: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    with torch.inference_mode(False):  # made while generating, it must serve training as well
        return _bias(mask, Geometry(*sizes), tile, groups, dtype, device)


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def _needed(tile: _Tile, each: Tensor) -> Tensor:
    """Return the keys or values of a tile, [B, K, n, C]."""
    return _joined([each.narrow(2, a, b - a) for a, b in tile.pieces], 2)


def _add(tile: _Tile, total: Tensor, part: Tensor) -> None:
    """Add the gradients of a tile's keys or values to those of all."""
    sizes = [stop - start for start, stop in tile.pieces]
    for (start, stop), piece in zip(tile.pieces, part.split(sizes, 2), strict=True):
        total.narrow(2, start, stop - start).add_(piece)


class _Blocked(torch.autograd.Function):
    """The products of all tiles, and their derivative."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, keys: Tensor, values: Tensor, plan: Plan) -> Tensor:
        ctx.plan = plan
        batch, heads, length, _ = query.shape
        # Heads of a position beside each other, as the projection after attention reads them.
        out = query.new_empty(batch, length, heads, values.shape[3]).transpose(1, 2)
        kept: list[Tensor] = []
        with torch.autocast(query.device.type, enabled=False):
            for tile in plan.tiles:
                inputs = (plan.rows(tile, query), _needed(tile, keys), _needed(tile, values))
                part, memory = (_fused if plan.fused else _plain)(plan, tile, *inputs)
                plan.put(tile, out, part)
                kept += memory
        ctx.save_for_backward(query, keys, values, out, *kept)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query, keys, values, out, *kept = ctx.saved_tensors
        plan: Plan = ctx.plan
        exact = torch.promote_types(keys.dtype, torch.float32)  # many tiles add to one key
        grad_query = torch.empty_like(query)
        grad_keys, grad_values = (torch.zeros_like(each, dtype=exact) for each in (keys, values))
        with torch.autocast(query.device.type, enabled=False):
            for number, tile in enumerate(plan.tiles):
                inputs = (plan.rows(tile, query), _needed(tile, keys), _needed(tile, values))
                results = (plan.rows(tile, gradients[0]), plan.rows(tile, out))
                memory = kept[number] if kept else None
                backward = _fused_backward if plan.fused else _plain_backward
                rows, of_keys, of_values = backward(plan, tile, inputs, results, memory)
                plan.put(tile, grad_query, rows)
                _add(tile, grad_keys, of_keys)
                _add(tile, grad_values, of_values)
        return grad_query, grad_keys.to(keys.dtype), grad_values.to(values.dtype), None


def _fused(
    plan: Plan, tile: _Tile, rows: Tensor, keys: Tensor, values: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Return a tile's result, and the logarithm of the sum in each row's softmax."""
    part, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        rows, keys, values, 0.0, plan.causal(tile),
        attn_mask=_four(plan.bias(tile)), scale=plan.call.scale,
    )  # fmt: skip
    return part, [sums]


def _fused_backward(
    plan: Plan,
    tile: _Tile,
    inputs: tuple[Tensor, ...],
    results: tuple[Tensor, ...],
    sums: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    gradient, out = results
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(  # type: ignore[no-any-return]
        gradient, *inputs, out, sums, 0.0, plan.causal(tile),
        attn_mask=_four(plan.bias(tile)), scale=plan.call.scale,
    )  # fmt: skip


def _four(bias: Tensor) -> Tensor:
    """Return a tile's mask with a place for the heads, and for the texts where they share it."""
    return bias[None, None] if bias.ndim == 2 else bias[:, None]


def _weights(plan: Plan, tile: _Tile, rows: Tensor, keys: Tensor) -> Tensor:
    """Return the softmax of a tile's scores, [B, K, G · t, n]."""
    bias, scale = plan.bias(tile), plan.call.scale
    if bias.ndim == 3:
        return torch.matmul(rows, keys.mT).mul_(scale).add_(bias[:, None]).softmax(-1)
    flat, near = rows.flatten(0, 1), keys.flatten(0, 1)
    return torch.baddbmm(bias, flat, near.mT, alpha=scale).softmax(-1).unflatten(0, rows.shape[:2])


def _plain(
    plan: Plan, tile: _Tile, rows: Tensor, keys: Tensor, values: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Return a tile's result, and which weights were dropped."""
    weights, rate = _weights(plan, tile, rows, keys), plan.call.dropout
    if not rate:
        return torch.matmul(weights, values), []
    dropped = torch.rand(weights.shape, device=weights.device) < rate
    weights = weights.masked_fill(dropped, 0).div_(1 - rate)
    return torch.matmul(weights, values), [dropped]


def _plain_backward(
    plan: Plan,
    tile: _Tile,
    inputs: tuple[Tensor, ...],
    results: tuple[Tensor, ...],
    dropped: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of a tile's queries, keys and values.

    With P = softmax(S): dV = Pᵀ·dO, dP = dO·Vᵀ, dS = P∘(dP − Σ dP∘P), dQ = s·dS·K, dK = s·dSᵀ·Q.
    """
    (rows, keys, values), gradient = inputs, results[0]
    scale, rate = plan.call.scale, plan.call.dropout
    weights = _weights(plan, tile, rows, keys)
    slope = torch.matmul(gradient, values.mT)
    kept = weights
    if dropped is not None:
        slope = slope.masked_fill_(dropped, 0).div_(1 - rate)
        kept = weights.masked_fill(dropped, 0).div_(1 - rate)
    of_values = torch.matmul(kept.mT, gradient)
    slope = torch.ops.aten._softmax_backward_data(slope, weights, -1, weights.dtype)
    of_keys = torch.matmul(slope.mT, rows).mul_(scale)
    return torch.matmul(slope, keys).mul_(scale), of_keys, of_values
