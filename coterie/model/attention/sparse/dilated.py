"""Dilated attention: only positions whose distance is a multiple of the stride.

The dilated windows of Beltagy et al. 2020, arXiv:2004.05150 (Longformer); Ding et al. 2023,
arXiv:2307.02486 (LongNet) mix such strides. With a window of w it sees w / stride positions, so a
layer reaches stride times as far for the same work; other layers must tell the classes apart.
"""

from typing import Literal

from jaxtyping import Int
from pydantic import Field
from torch import Tensor

from coterie.model.attention.sparse.interface import SparsePattern


class DilatedPattern(SparsePattern):
    """Settings of dilated attention."""

    kind: Literal["dilated"] = "dilated"
    stride: int = Field(default=4, ge=1, description="distances seen are multiples of it")

    def allows(self, query: Tensor, key: Tensor) -> Tensor:
        return (query - key) % self.stride == 0

    def seen(self, at: Int[Tensor, " T"], latest: Int[Tensor, " T"]) -> Int[Tensor, " T"]:
        return (latest + self.stride - 1) // self.stride
