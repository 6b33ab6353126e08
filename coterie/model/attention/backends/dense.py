"""The definition itself: all products, the mask added, softmax, products with the values.

In the inputs' own precision, so in float64 it is what every other back end is held against. On the
CPU it is also the fastest for short texts, where scaled dot-product attention has a large fixed
cost.
"""

from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from coterie.model.attention.backends.interface import (
    BackendFunction,
    BackendSettings,
    Call,
    all_scores,
    shared_heads,
)
from coterie.model.attention.mask import Mask
from coterie.model.geometry import Geometry

_REMEMBERED = 256 * 256
"""Masks of up to so many elements are kept for the next layer; larger ones are made anew."""


class DenseBackend(BackendSettings):
    """Settings of the dense back end."""

    kind: Literal["dense"] = "dense"

    def build(self) -> "DenseFunction":
        return _FUNCTION


class DenseFunction(BackendFunction):
    """Two batched products with a softmax between; memory grows with T · S."""

    def scores(self, call: Call) -> int:
        """Return how many scores are held at once: all."""
        return all_scores(call)

    def __call__(self, call: Call) -> Float[Tensor, "B H T E"]:
        query = call.query.flatten(0, 1)
        keys = shared_heads(call.keys, call.groups).flatten(0, 1)
        values = shared_heads(call.values, call.groups).flatten(0, 1)
        bias = additive(call)
        if not call.geometry.per_row:
            scores = torch.baddbmm(bias, query, keys.mT, alpha=call.scale)
        else:
            scores = torch.bmm(query, keys.mT) * call.scale
            scores = (scores.unflatten(0, call.query.shape[:2]) + bias).flatten(0, 1)
        weights = scores.softmax(-1)
        if call.dropout:
            weights = F.dropout(weights, call.dropout)
        return torch.bmm(weights.to(values.dtype), values).unflatten(0, call.query.shape[:2])


_FUNCTION = DenseFunction()


def additive(call: Call) -> Tensor:
    """Return the mask to be added to scores: 0 where a key is seen, −∞ where not."""
    size = call.query.shape[2] * call.keys.shape[2]
    if call.geometry.per_row or size > _REMEMBERED or torch.compiler.is_compiling():
        return hiding(call.visible(), call.query.dtype)
    return _remembered(
        call.mask, call.query.shape[2], call.keys.shape[2], call.geometry.num_sinks,
        call.geometry.start_position, call.query.dtype, call.query.device,
    )  # fmt: skip


def hiding(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Return 0 where something is visible and −∞ where it is not."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(
        ~visible, -torch.inf
    )


@lru_cache(maxsize=64)
def _remembered(
    mask: Mask,
    queries: int,
    keys: int,
    num_sinks: int,
    start_position: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    with torch.inference_mode(False):  # made while generating, it must serve training as well
        geometry = Geometry(queries, keys, num_sinks, start_position)
        return hiding(geometry.visible(mask, device), dtype)
