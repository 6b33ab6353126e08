"""Grouped products: all experts of a pack in one product over the sorted rows.

`torch.nn.functional.grouped_mm` takes float32 and bfloat16 whose rows are multiples of 16 bytes;
anything else is computed by the loop, which gives the same result.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from coterie.foundation.settings import Settings
from coterie.model.experts.bodies import BodyPart, Linear
from coterie.model.experts.compute.interface import Computation
from coterie.model.experts.compute.loop import LoopComputation

_ALIGNMENT = 16  # bytes


class GroupedCompute(Settings):
    """Settings of grouped products."""

    kind: Literal["grouped"] = "grouped"

    def build(self) -> GroupedComputation:
        """Return the function."""
        return GroupedComputation()


class GroupedComputation(Computation):
    """One grouped product per matrix of the body."""

    def __init__(self) -> None:
        self._loop = LoopComputation()

    def rows(
        self, pack: BodyPart, rows: Float[Tensor, "N D"], counts: Int[Tensor, " E"]
    ) -> Float[Tensor, "N D"]:
        """Compute rows sorted by expert."""
        dtype = _product_dtype(rows)
        if not _is_supported(pack, dtype) or rows.shape[0] == 0:
            return self._loop.rows(pack, rows, counts)
        return pack.run(rows, pack.weights(), _linear(counts, rows.shape[0], dtype))


def _linear(counts: Tensor, rows: int, dtype: torch.dtype) -> Linear:
    """Return the linear map of each row by its own expert."""
    ends = counts.cumsum(0).to(torch.int32)

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        product = F.grouped_mm(x.to(dtype), weight.to(dtype).mT, offs=ends)
        if bias is None:
            return product
        return product + bias.to(dtype).repeat_interleave(counts, dim=0, output_size=rows)

    return linear


def _product_dtype(x: Tensor) -> torch.dtype:
    """Return the type of products: autocast does not know grouped ones."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def _is_supported(pack: BodyPart, dtype: torch.dtype) -> bool:
    if dtype not in (torch.float32, torch.bfloat16):
        return False
    matrices = (each for each in pack.weights() if each is not None and each.ndim == 3)
    return all(side * dtype.itemsize % _ALIGNMENT == 0 for m in matrices for side in m.shape[1:])
