"""flash-attn, where it is installed: fused kernels for CUDA in half precision.

Dao 2023, arXiv:2307.08691. It knows causal attention, windows and documents of unequal length, but
neither sinks nor sparse patterns.
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from coterie.foundation.errors import require
from coterie.model.attention.backends.interface import BackendSettings, Call
from coterie.model.attention.mask import Mask

_CHANNELS = 256
"""The most channels of a head that its kernels know."""


class FlashBackend(BackendSettings):
    """Settings of flash-attn."""

    kind: Literal["flash"] = "flash"

    def check(self, mask: Mask) -> None:
        """Make sure that it can express a mask.

        Raises:
            ValueError: it has sinks or a sparse pattern.
        """
        reason = _inexpressible(mask)
        if reason is not None:
            raise ValueError(reason)

    def build(self) -> "FlashFunction":
        """Return the function.

        Raises:
            MissingExtraError: flash-attn is not installed.
        """
        module = require("flash_attn", "flash")
        return FlashFunction(module.flash_attn_func, module.flash_attn_varlen_func)


class FlashFunction:
    """Says a call in flash-attn's words.

    Args:
        fixed: its `flash_attn_func`, for rows of one text.
        packed: its `flash_attn_varlen_func`, for rows of several documents.
    """

    def __init__(self, fixed: Callable[..., Tensor], packed: Callable[..., Tensor]) -> None:
        self._fixed, self._packed = fixed, packed

    def refuses(self, call: Call) -> str | None:
        """Say what its kernels do not know."""
        query, values = call.query, call.values
        if query.device.type != "cuda":
            return (
                f"flash-attn runs on CUDA, not on {query.device.type}; use attention.backend=auto"
            )
        if query.dtype not in (torch.float16, torch.bfloat16):
            return f"flash-attn computes in half precision, not {query.dtype}; use sdpa"
        if query.shape[3] != values.shape[3] or query.shape[3] > _CHANNELS:
            return (
                f"flash-attn wants values as long as keys and at most {_CHANNELS} channels, not "
                f"{query.shape[3]} and {values.shape[3]}; use attention.backend=sdpa"
            )
        if call.geometry.ragged:
            return "flash-attn does not read unequal rows through a cache here; use sdpa or auto"
        return _inexpressible(call.mask)

    def scores(self, call: Call) -> int:
        """Return how many scores are held at once: none."""
        return 0

    def __call__(self, call: Call) -> Float[Tensor, "B H T E"]:
        """Compute it; its tensors are [B, T, H, C], and its windows do not count the query."""
        window = (-1, -1) if call.mask.window is None else (call.mask.window - 1, 0)
        words = {
            "dropout_p": call.dropout, "softmax_scale": call.scale, "causal": True,
            "window_size": window,
        }  # fmt: skip
        inputs = [each.transpose(1, 2) for each in (call.query, call.keys, call.values)]
        starts = call.geometry.starts
        if starts is None:
            # Fewer queries than keys: it takes them for the last positions, as we do.
            return self._fixed(*inputs, **words).transpose(1, 2)
        bounds, longest = document_bounds(starts)
        flat = [each.flatten(0, 1) for each in inputs]
        out = self._packed(*flat, bounds, bounds, longest, longest, **words)
        return out.unflatten(0, starts.shape).transpose(1, 2)


def document_bounds(starts: Tensor) -> tuple[Tensor, int]:
    """Return where documents begin and end in the rows laid end to end, and the longest's length.

    Args:
        starts: the place in its row of the first token of each token's document, [B, T].
    """
    at = torch.arange(starts.shape[1], device=starts.device).expand_as(starts)
    begins = (at == starts).flatten().nonzero().flatten()
    bounds = torch.cat((begins, begins.new_tensor([starts.numel()]))).to(torch.int32)
    return bounds, int(bounds.diff().max())


def _inexpressible(mask: Mask) -> str | None:
    if mask.sinks or mask.sparse is not None:
        return f"flash-attn knows windows, not “{mask.words}”; use attention.backend=blocked"
    return None
