"""FlexAttention: the mask as a function, from which torch makes a fused kernel and skips blocks.

Dong et al. 2024, arXiv:2412.05496. The function is the mask's own definition, so any pattern can be
expressed. On an accelerator it is compiled; on the CPU it runs as it is, forward only and with all
scores in memory, which serves to check a mask.
"""

import warnings
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from coterie.model.attention.backends.interface import BackendSettings, Call, all_scores
from coterie.model.attention.mask import Mask


class FlexBackend(BackendSettings):
    """Settings of FlexAttention."""

    kind: Literal["flex"] = "flex"

    def build(self) -> "FlexFunction":
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
        blocks = None if call.open else _block_mask(call)
        query, keys, values = call.query, call.keys, call.values
        if not call.differentiated:  # on the CPU it refuses even to be asked for gradients later
            query, keys, values = query.detach(), keys.detach(), values.detach()
        words = {"block_mask": blocks, "scale": call.scale, "enable_gqa": call.groups > 1}
        on_cpu, compiling = query.device.type == "cpu", torch.compiler.is_compiling()
        attention = _torch_flex().flex_attention if on_cpu or compiling else _compiled()
        if compiling or not on_cpu:
            return attention(query, keys, values, **words)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "flex_attention called without torch.compile")
            return attention(query, keys, values, **words)


_FUNCTION = FlexFunction()
_MOST = 16
"""How many block masks are remembered: making one looks at all pairs."""
_REMEMBERED: dict[tuple[Mask, int, int, int, int, torch.device], Any] = {}


def _torch_flex() -> ModuleType:
    """Return torch's module, imported when asked for: it loads the compiler, in seconds."""
    from torch.nn.attention import flex_attention  # noqa: PLC0415

    return flex_attention


@cache
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(_torch_flex().flex_attention, dynamic=False)


def _block_mask(call: Call) -> Any:
    """Return the `BlockMask` of a call, from a memory where it depends on sizes alone."""
    if call.query.device.type == "cpu" and not torch.compiler.is_compiling():
        # All scores will be in memory anyway; looking up a table spares tracing each mask anew.
        table = call.visible()
        if not call.geometry.per_row:
            return _make(lambda batch, head, query, key: table[query, key], call)
        return _make(lambda batch, head, query, key: table[batch, 0, query, key], call)
    if call.geometry.per_row or torch.compiler.is_compiling():
        return _make(definition(call), call)
    where = call.geometry
    sizes = (where.num_queries, where.num_keys, where.num_sinks, where.start_position)
    remembered = _REMEMBERED.get((call.mask, *sizes, call.query.device))
    if remembered is None:
        while len(_REMEMBERED) >= _MOST:
            _REMEMBERED.pop(next(iter(_REMEMBERED)))
        with torch.inference_mode(False):  # made while generating, it must serve training as well
            remembered = _make(definition(call), call)
        _REMEMBERED[(call.mask, *sizes, call.query.device)] = remembered
    return remembered


def _make(sees: Callable[..., Tensor], call: Call) -> Any:
    batch = call.query.shape[0] if call.geometry.per_row else None
    queries, keys = call.query.shape[2], call.keys.shape[2]
    return _torch_flex().create_block_mask(sees, batch, None, queries, keys, str(call.query.device))


def definition(call: Call) -> Callable[..., Tensor]:
    """Return the mask as FlexAttention wants it: (batch, head, query, key) → whether it is seen.

    Both are lambdas: torch looks at how many arguments are written down, which wrapping would hide.
    """
    mask, where, device = call.mask, call.geometry, call.query.device
    if not where.per_row:
        sinks, shift = where.num_sinks, where.start_position - where.num_sinks
        earlier = where.stop - where.num_queries
        return lambda batch, head, query, key: mask.sees(
            query + earlier, torch.where(key < sinks, key, key + shift)
        )
    starts, key_starts = where.document_starts()
    queries_at, keys_at = where.queries_at(device), where.keys_at(device)
    if starts is None or key_starts is None:
        return lambda batch, head, query, key: mask.sees(
            queries_at[batch, query], keys_at[batch, key]
        )
    if where.starts is not None:
        return lambda batch, head, query, key: (
            mask.sees(query - starts[batch, query], key - key_starts[batch, key])
            & (starts[batch, query] == key_starts[batch, key])
        )
    return lambda batch, head, query, key: (
        mask.sees(
            queries_at[batch, query] - starts[batch, query],
            keys_at[batch, key] - key_starts[batch, key],
        )
        & (starts[batch, query] == key_starts[batch, key])
    )
