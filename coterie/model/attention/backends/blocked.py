"""Block by block: a tile of queries at a time against the only keys that any of them can see.

What a tile needs is asked of the mask (`Mask.ranges`), so a window costs T · (w + tile), sinks add
a few keys, block-sparse patterns skip absent blocks and packed documents do not meet. Nothing of
size T · S ever exists: the weights of a tile are computed again in the backward pass, as Dao et al.
2022, arXiv:2205.14135 (FlashAttention) do, from whole rows, since a tile sees all its keys at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from coterie.model.attention.backends.dense import hiding
from coterie.model.attention.backends.interface import BackendSettings, Call
from coterie.model.attention.mask import Range, merged

_TILE = 128
"""Queries of a tile."""


class BlockedBackend(BackendSettings):
    """Settings of the blocked back end."""

    kind: Literal["blocked"] = "blocked"

    def build(self) -> BlockedFunction:
        """Return the function."""
        return _FUNCTION


class BlockedFunction:
    """Plain products tile by tile, with a derivative that keeps only queries, keys and values."""

    def refuses(self, call: Call) -> None:
        """Refuse nothing."""

    def scores(self, call: Call) -> int:
        """Return how many scores are held at once: those of a tile."""
        largest = max((tile.stop - tile.start) * tile.keys for tile in Plan(call).tiles)
        return call.query.shape[0] * call.query.shape[1] * largest

    def plan(self, call: Call) -> Plan:
        """Return which keys each tile needs, without computing anything."""
        return Plan(call)

    def compute(self, plan: Plan) -> Float[Tensor, "B H T E"]:
        """Compute what was planned."""
        call = plan.call
        return _Blocked.apply(call.query, call.keys, call.values, plan)  # type: ignore[no-any-return]

    def __call__(self, call: Call) -> Float[Tensor, "B H T E"]:
        """Compute it."""
        return self.compute(Plan(call))


_FUNCTION = BlockedFunction()


@dataclass(frozen=True)
class _Tile:
    """Queries from `start` to `stop` and the ranges of keys for them, as places in the tensors."""

    start: int
    stop: int
    pieces: tuple[Range, ...]

    @property
    def keys(self) -> int:
        return sum(stop - start for start, stop in self.pieces)


@dataclass
class Plan:
    """The tiles of a call and their masks."""

    call: Call
    tiles: list[_Tile] = field(default_factory=list)
    _biases: dict[tuple[int, Range], Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        call, where = self.call, self.call.geometry
        length, step = call.query.shape[2], call.mask.tile(_TILE)
        earlier = 0 if where.ragged else where.stop - length
        # Tiles begin where the mask's own blocks do, so that each needs as few of them as can be.
        cuts = [0, *range(step - earlier % step, length, step), length]
        for start, stop in pairwise(cuts):
            if where.ragged:  # rows need different keys; all are looked at
                pieces = [(0, where.num_keys)]
            else:
                pieces = self._places(self._ranges(start + earlier, stop + earlier))
            self.tiles.append(_Tile(start, stop, tuple(pieces)))

    @property
    def share(self) -> float:
        """The share of all pairs of queries and keys that the tiles look at."""
        pairs = sum((tile.stop - tile.start) * tile.keys for tile in self.tiles)
        return pairs / (self.call.query.shape[2] * self.call.keys.shape[2])

    def _ranges(self, start: int, stop: int) -> list[Range]:
        """Return the positions that the queries at positions from `start` to `stop` need."""
        starts, mask = self.call.geometry.starts, self.call.mask
        if starts is None:
            return mask.ranges(start, stop)
        compiling = torch.compiler.is_compiling()  # sizes must not follow from values then
        begins = [0] if compiling else starts[:, start:stop].unique().tolist()
        low = begins[0]
        if mask.sparse is not None:
            return [(low, stop)]  # patterns count from each document's start
        window = low if mask.window is None else max(low, start - mask.window + 1)
        if mask.sinks and compiling:
            window = low
        sinks = [(begin, min(begin + mask.sinks, stop)) for begin in begins if mask.sinks]
        return merged([*sinks, (window, stop)])

    def _places(self, ranges: list[Range]) -> list[Range]:
        """Return where in the keys the positions of ranges are, as far as they were given."""
        sinks, first = self.call.geometry.num_sinks, self.call.geometry.start_position
        shift = first - sinks
        found = [(start, min(stop, sinks)) for start, stop in ranges]
        return merged(found + [(max(a, first) - shift, b - shift) for a, b in ranges])

    def bias(self, tile: _Tile) -> Tensor:
        """Return the additive mask of a tile: [t, n], or [B, t, n] where rows differ."""
        call, where = self.call, self.call.geometry
        repeats = call.mask.relative and not where.per_row and not where.num_sinks
        repeats = repeats and len(tile.pieces) == 1
        repeats = repeats and not torch.compiler.is_compiling()  # its graphs share nothing
        start, stop = tile.pieces[0]
        key = (tile.stop - tile.start, (start - tile.start, stop - tile.start))
        if repeats and key in self._biases:
            return self._biases[key]
        device = call.query.device
        places = _joined([torch.arange(a, b, device=device) for a, b in tile.pieces], 0)
        seen = where.visible(call.mask, device, slice(tile.start, tile.stop), places)
        bias = hiding(seen, call.query.dtype)
        if repeats:
            self._biases[key] = bias
        return bias

    def weights(self, tile: _Tile, query: Tensor, keys: Tensor) -> Tensor:
        """Return the softmax of a tile's scores, [B · K, G · t, n]."""
        bias, groups = self.bias(tile), self.call.groups
        if bias.ndim == 2:
            bias = bias.repeat(groups, 1) if groups > 1 else bias
            return torch.baddbmm(bias, query, keys.mT, alpha=self.call.scale).softmax(-1)
        scores = torch.bmm(query, keys.mT).mul_(self.call.scale)
        shape = (bias.shape[0], -1, groups, *bias.shape[1:])
        return (scores.view(shape) + bias[:, None, None]).view_as(scores).softmax(-1)

    def rows(self, tile: _Tile, each: Tensor) -> Tensor:
        """Return a tile's queries (or their gradients), those that share keys below each other."""
        part = each[:, :, tile.start : tile.stop]
        return part.reshape(-1, self.call.groups * part.shape[2], part.shape[3])


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def _needed(tile: _Tile, each: Tensor) -> Tensor:
    """Return the keys or values of a tile, [B · K, n, C]."""
    return _joined([each[:, :, a:b] for a, b in tile.pieces], 2).flatten(0, 1)


def _add(tile: _Tile, total: Tensor, part: Tensor) -> None:
    """Add the gradients of a tile's keys or values to those of all."""
    part = part.unflatten(0, total.shape[:2])
    sizes = [stop - start for start, stop in tile.pieces]
    for (start, stop), piece in zip(tile.pieces, part.split(sizes, 2), strict=True):
        total[:, :, start:stop] += piece


class _Blocked(torch.autograd.Function):
    """The products of all tiles, and their derivative.

    With P = softmax(S): dV = Pᵀ·dO, dP = dO·Vᵀ, dS = P∘(dP − Σ dP∘P), dQ = s·dS·K, dK = s·dSᵀ·Q.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, keys: Tensor, values: Tensor, plan: Plan) -> Tensor:
        ctx.plan = plan
        out = query.new_empty(*query.shape[:3], values.shape[3])
        dropped, rate = [], plan.call.dropout
        with torch.autocast(query.device.type, enabled=False):
            for tile in plan.tiles:
                weights = plan.weights(tile, plan.rows(tile, query), _needed(tile, keys))
                if rate:
                    dropped.append(torch.rand(weights.shape, device=weights.device) < rate)
                    weights = weights.masked_fill(dropped[-1], 0).div_(1 - rate)
                part = torch.bmm(weights, _needed(tile, values))
                out[:, :, tile.start : tile.stop] = part.view(
                    *query.shape[:2], tile.stop - tile.start, -1
                )
        ctx.save_for_backward(query, keys, values, *dropped)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query, keys, values, *dropped = ctx.saved_tensors
        plan, rate = ctx.plan, ctx.plan.call.dropout
        exact = torch.promote_types(keys.dtype, torch.float32)  # many tiles add to one key
        grad_query = torch.empty_like(query)
        grad_keys, grad_values = (torch.zeros_like(each, dtype=exact) for each in (keys, values))
        with torch.autocast(query.device.type, enabled=False):
            for number, tile in enumerate(plan.tiles):
                rows, gradient = plan.rows(tile, query), plan.rows(tile, gradients[0])
                near = _needed(tile, keys)
                weights = plan.weights(tile, rows, near)
                slope = torch.bmm(gradient, _needed(tile, values).mT)
                kept = weights
                if rate:
                    slope = slope.masked_fill_(dropped[number], 0).div_(1 - rate)
                    kept = weights.masked_fill(dropped[number], 0).div_(1 - rate)
                _add(tile, grad_values, torch.bmm(kept.mT, gradient))
                slope = torch.ops.aten._softmax_backward_data(slope, weights, -1, weights.dtype)
                part = torch.bmm(slope, near).mul_(plan.call.scale)
                grad_query[:, :, tile.start : tile.stop] = part.view(
                    *query.shape[:2], tile.stop - tile.start, -1
                )
                _add(tile, grad_keys, torch.bmm(slope.mT, rows).mul_(plan.call.scale))
        return grad_query, grad_keys.to(keys.dtype), grad_values.to(values.dtype), None
