"""bfloat16 that is rounded to one side: what a scale must cover it covers."""

import torch
from torch import Tensor

_CUT = -(1 << 16)


def rounded_up(values: Tensor) -> Tensor:
    """Return finite float32 values as the least bfloat16 that are not below them, in float32."""
    bits = values.contiguous().view(torch.int32)
    return torch.where(values > 0, bits + 0xFFFF, bits).bitwise_and_(_CUT).view(torch.float32)


def rounded_down(values: Tensor) -> Tensor:
    """Return finite float32 values as the greatest bfloat16 that are not above them, in float32."""
    return -rounded_up(-values)
