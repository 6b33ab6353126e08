"""How much attention each position draws: for caches that choose by it what to keep, and for
whoever looks into a pass.
"""

from collections.abc import Callable, Iterator
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from coterie.model.attention.mask import Mask
from coterie.model.cache import ObservingCache
from coterie.model.context import ForwardContext
from coterie.model.geometry import Geometry, real_tokens

_QUERIES = 128
"""Queries taken together, so that a long prompt never holds all of its weights."""


def observing(context: ForwardContext) -> ObservingCache | None:
    """Return the layer's cache if it wants to know what attention looks at."""
    cache = context.kv_cache
    # Not `isinstance`: protocols are slow to ask, and this is asked for every token and layer.
    return cast("ObservingCache", cache) if hasattr(cache, "observe") else None


def received(
    query: Float[Tensor, "B H T C"],
    keys: Float[Tensor, "B K S C"],
    mask: Mask,
    geometry: Geometry,
    scale: float,
    lengths: tuple[int, ...] | None = None,
) -> Float[Tensor, "B S"]:
    """Return the attention weights of each key, summed over queries, averaged over heads.

    Args:
        query: head h reads head h // (H / K) of the keys.
        keys: of all positions that the cache returned.
        lengths: how many queries of each row are real; None: all.
    """
    batch, heads, number = query.shape[:3]
    total = query.new_zeros(batch, keys.shape[2], dtype=torch.float32)
    real = None if lengths is None else real_tokens(lengths, number, query.device)
    for part, weights in _weights(query, keys, mask, geometry, scale):
        if real is not None:
            weights = weights * real[:, None, None, part, None]
        total += weights.sum((1, 2, 3)) / heads
    return total


def tell_attention(
    watch: Callable[[Tensor], None],
    query: Float[Tensor, "B H T C"],
    keys: Float[Tensor, "B K S C"],
    mask: Mask,
    geometry: Geometry,
    scale: float,
) -> None:
    """Hand each query's attention weights, averaged over heads, to whoever looks."""
    parts = _weights(query, keys, mask, geometry, scale)
    watch(torch.cat([weights.mean((1, 2)) for _, weights in parts], dim=1))


def _weights(
    query: Tensor, keys: Tensor, mask: Mask, geometry: Geometry, scale: float
) -> Iterator[tuple[slice, Float[Tensor, "B K G T S"]]]:
    """Yield runs of queries and their weights, of G query heads for each of the K key heads."""
    grouped = query.unflatten(1, (keys.shape[1], -1))
    # The latest query alone, as in generation, sees all that came before it.
    whole = query.shape[2] == 1 and mask.plain and not geometry.per_row
    for start in range(0, query.shape[2], _QUERIES):
        part = slice(start, start + _QUERIES)
        logits = torch.matmul(grouped[:, :, :, part], keys[:, :, None].mT) * scale
        if not whole:
            seen = geometry.visible(mask, query.device, queries=part)
            if geometry.per_row:
                seen = seen[:, None, None]
            logits = logits.masked_fill(~seen, -torch.inf)
        yield part, logits.softmax(-1, torch.float32)
