"""Numbers of 8 or 4 bits in place of floats: each group gets a lowest value and a step.

A number x becomes the code (x − low) / step, rounded; `low` is the smallest of its group and `step`
the range divided by the codes there are. So x comes back wrong by at most half a step, whatever
other groups hold: an outlier costs its own group and no other.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import BFloat16, Float, Float32, UInt8
from torch import Tensor

SCALE_BYTES = 6
"""What the lowest value and the step of a group take."""
STEP_ROUNDING = 2.0**-7
"""A stored step is larger than the exact one by at most this part of it."""


class Codes(NamedTuple):
    """Codes and what turns them back into numbers.

    With 4 bits the first half of the last dimension lies in the low half of each byte, the second
    half in the high half.
    """

    codes: UInt8[Tensor, "*S"]
    low: Float32[Tensor, "*S"]
    step: BFloat16[Tensor, "*S"]

    def each(self, change: Callable[[Tensor], Tensor]) -> "Codes":
        """Return the same with each tensor changed."""
        return Codes(*map(change, self))


def encode(x: Float[Tensor, "*S"], dim: int, bits: int) -> Codes:
    """Return numbers as codes; those along `dim` are a group.

    Args:
        x: any numbers; a group with one that is not finite comes back as not a number.
        bits: of each code, 8 or 4.
    """
    x = x.float()
    low, high = x.aminmax(dim=dim, keepdim=True)
    levels = (1 << bits) - 1
    # Rounded up, so that no number lies beyond the last code.
    step = ((high - low) * ((1 + STEP_ROUNDING / 2) / levels)).bfloat16()
    step = step.clamp(min=torch.finfo(torch.bfloat16).tiny)
    codes = ((x - low) / step.float()).round_().clamp_(0, levels).nan_to_num_().to(torch.uint8)
    if bits == 4:
        half = (codes.shape[-1] + 1) // 2
        packed = codes[..., :half].clone()
        packed[..., : codes.shape[-1] - half] |= codes[..., half:] << 4
        codes = packed
    return Codes(codes, low, step)


def decode_into(out: Float[Tensor, "*S"], held: Codes, bits: int) -> None:
    """Write the numbers that codes stand for; `out` gives their type and shape."""
    if bits == 4:
        half = held.codes.shape[-1]
        out[..., :half] = held.codes & 15
        out[..., half:] = (held.codes >> 4)[..., : out.shape[-1] - half]
    else:
        out.copy_(held.codes)
    out.mul_(held.step.to(out.dtype)).add_(held.low.to(out.dtype))
