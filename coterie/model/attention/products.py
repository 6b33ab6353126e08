"""The products of attention: causal, over all earlier positions or a window of them.

The T queries are always the last T of the S positions that keys are given for. A window of w is the
query's own position and the w − 1 before it. What is computed follows from the sizes alone: nothing
is masked that need not be, short texts on the CPU go through plain products (where scaled
dot-product attention has a large fixed cost), and a window much shorter than the text goes block by
block, so that the cost grows with T·w and not with T².
"""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

_SHORT = 128
"""Texts up to so many tokens go through plain products on the CPU; measured crossover 128–256."""
_BLOCK = (32, 256)
"""Smallest and largest block of queries of the blocked window; between them, the window itself."""


def attend(
    query: Float[Tensor, "B H T C"],
    keys: Float[Tensor, "B K S C"],
    values: Float[Tensor, "B K S C"],
    *,
    window: int | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "B H T C"]:
    """Return softmax(q·kᵀ / sqrt(C))·v over the positions that each query may see.

    Args:
        query: of the last T positions.
        keys: of S ≥ T positions; head h of the queries reads head h // (H / K).
        values: of the same positions.
        window: how many positions a query sees, its own included; None: all up to its own.
        dropout: share of the weights set to zero.
    """
    length, seen = query.shape[2], keys.shape[2]
    if window is not None and seen > length + window - 1:
        keys, values = (each[:, :, seen - length - window + 1 :] for each in (keys, values))
        seen = keys.shape[2]
    if window is not None and window >= seen:
        window = None
    if length == 1:
        return _one_query(query, keys, values, dropout)
    if keys.shape[1] != query.shape[1]:
        repeats = query.shape[1] // keys.shape[1]
        keys, values = (each.repeat_interleave(repeats, dim=1) for each in (keys, values))
    if window is not None and length > 2 * window + _BLOCK[0]:
        return _blocked(query, keys, values, window, dropout)
    return _dense(query, keys, values, window, dropout)


def visible(
    queries: int, keys: int, window: int | None, device: torch.device | None = None
) -> Bool[Tensor, "T S"]:
    """Return which of S positions each of the last T positions may see."""
    at = torch.arange(keys - queries, keys, device=device)[:, None]
    of = torch.arange(keys, device=device)[None, :]
    seen = of <= at
    return seen if window is None else seen & (of > at - window)


def _one_query(query: Tensor, keys: Tensor, values: Tensor, dropout: float) -> Tensor:
    """A single position sees all keys it is given; heads that share keys become its rows."""
    rows = query.view(query.shape[0], keys.shape[1], -1, query.shape[-1])
    return F.scaled_dot_product_attention(rows, keys, values, dropout_p=dropout).view_as(query)


def _dense(
    query: Tensor, keys: Tensor, values: Tensor, window: int | None, dropout: float
) -> Tensor:
    length, seen = query.shape[2], keys.shape[2]
    if query.device.type == "cpu" and seen <= _SHORT:
        return _plain(query, keys, values, window, dropout)
    if window is None and length == seen:
        return F.scaled_dot_product_attention(
            query, keys, values, dropout_p=dropout, is_causal=True
        )
    mask = visible(length, seen, window, query.device)
    return F.scaled_dot_product_attention(query, keys, values, mask, dropout)


def _plain(
    query: Tensor, keys: Tensor, values: Tensor, window: int | None, dropout: float
) -> Tensor:
    """The definition itself, as two batched products."""
    mask = _additive(query.shape[2], keys.shape[2], window, query.dtype)
    scores = torch.baddbmm(
        mask, query.flatten(0, 1), keys.flatten(0, 1).mT, alpha=query.shape[-1] ** -0.5
    )
    weights = scores.softmax(-1)
    if dropout:
        weights = F.dropout(weights, dropout)
    return torch.bmm(weights, values.flatten(0, 1)).unflatten(0, query.shape[:2])


@lru_cache(maxsize=64)
def _additive(queries: int, keys: int, window: int | None, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # made while generating, it must serve training as well
        mask = torch.zeros(queries, keys, dtype=dtype)
        return mask.masked_fill_(~visible(queries, keys, window), -torch.inf)


def _blocked(query: Tensor, keys: Tensor, values: Tensor, window: int, dropout: float) -> Tensor:
    """Attention in a window, block by block; cost grows linearly with the number of queries.

    Queries without a full window before them go densely. The others are cut into blocks of b; a
    block sees one slice of b + w − 1 positions, through the same mask for every block.
    """
    extra = keys.shape[2] - query.shape[2]  # positions before the first query
    head = max(window - 1 - extra, 0)
    parts = []
    if head:
        stop = extra + head
        parts.append(
            _dense(query[:, :, :head], keys[:, :, :stop], values[:, :, :stop], None, dropout)
        )
        query = query[:, :, head:]
    first = extra + head - (window - 1)
    keys, values = keys[:, :, first:], values[:, :, first:]
    length = query.shape[2]
    block = min(max(window, _BLOCK[0]), _BLOCK[1])
    blocks = -(-length // block)
    padding = (0, 0, 0, blocks * block - length)
    span = block + window - 1
    keys, values = (
        F.pad(each, padding).unfold(2, span, block).transpose(-1, -2).flatten(1, 2)
        for each in (keys, values)
    )
    queries = F.pad(query, padding).unflatten(2, (blocks, block)).flatten(1, 2)
    mask = visible(block, span, window, query.device)
    out = F.scaled_dot_product_attention(queries, keys, values, mask, dropout)
    parts.append(out.unflatten(1, (-1, blocks)).flatten(2, 3)[:, :, :length])
    return torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]
