"""FlexAttention: the mask as a function, from which torch makes a fused kernel and skips blocks.

Dong et al. 2024, arXiv:2412.05496. The function is the mask's own definition, so any pattern can be
expressed. On an accelerator it is compiled; on the CPU it runs as it is, forward only and with all
scores in memory, which serves to check a mask.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from coterie.model.attention.backends.interface import BackendSettings, Call, all_scores
from coterie.model.attention.visible import Mask


class FlexBackend(BackendSettings):
    """Settings of FlexAttention."""

    kind: Literal["flex"] = "flex"

    def build(self) -> FlexFunction:
        """Return the function."""
        return _FUNCTION


class FlexFunction:
    """One call of `flex_attention` with a block mask of the call's own mask."""

    def refuses(self, call: Call) -> str | None:
        """Say that it drops no weights and, on the CPU, has no derivative."""
        if call.dropout:
            return "FlexAttention drops no weights; use attention.backend=auto or dropout=0"
        if call.query.device.type == "cpu" and call.differentiated:
            return (
                "FlexAttention has no derivative on the CPU; use attention.backend=blocked or auto "
                "to train there"
            )
        return None

    def scores(self, call: Call) -> int:
        """Return how many scores are held at once: all where it is not compiled."""
        return all_scores(call) if call.query.device.type == "cpu" else 0

    def __call__(self, call: Call) -> Float[Tensor, "B H T E"]:
        """Compute it."""
        blocks = None if call.open else _block_mask(call)
        inputs, shared = (call.query, call.keys, call.values), call.groups > 1
        if torch.compiler.is_compiling():
            return flex_attention(*inputs, block_mask=blocks, scale=call.scale, enable_gqa=shared)
        if call.query.device.type != "cpu":
            return _compiled()(*inputs, block_mask=blocks, scale=call.scale, enable_gqa=shared)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "flex_attention called without torch.compile")
            return flex_attention(*inputs, block_mask=blocks, scale=call.scale, enable_gqa=shared)


_FUNCTION = FlexFunction()


@cache
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(flex_attention, dynamic=False)


def _block_mask(call: Call) -> BlockMask:
    queries, keys, device = call.query.shape[2], call.keys.shape[2], call.query.device
    if call.starts is not None:
        function = _of_documents(call.mask, call.starts)
        return create_block_mask(function, call.starts.shape[0], None, queries, keys, str(device))
    if torch.compiler.is_compiling():
        return _make(call.mask, queries, keys, call.lead, call.first, device)
    return _remembered(call.mask, queries, keys, call.lead, call.first, device)


def _make(
    mask: Mask, queries: int, keys: int, lead: int, first: int, device: torch.device
) -> BlockMask:
    shift = first - lead

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        at = query + (keys - queries + shift)
        return mask.sees(at, torch.where(key < lead, key, key + shift))

    return create_block_mask(sees, None, None, queries, keys, str(device))


@lru_cache(maxsize=16)
def _remembered(
    mask: Mask, queries: int, keys: int, lead: int, first: int, device: torch.device
) -> BlockMask:
    with torch.inference_mode(False):  # made while generating, it must serve training as well
        return _make(mask, queries, keys, lead, first, device)


def _of_documents(mask: Mask, starts: Int[Tensor, "B T"]) -> Callable[..., Tensor]:
    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        begin, other = starts[batch, query], starts[batch, key]
        return mask.sees(query - begin, key - other) & (begin == other)

    return sees
