"""Strided attention: a run of the latest positions, and every l-th position before.

Child et al. 2019, arXiv:1904.10509, section 4.2: position i sees j where i − j < l or where l
divides i − j. With l near the root of the text's length, any position is reached in two layers.
"""

from typing import Literal

from jaxtyping import Int
from pydantic import Field
from torch import Tensor

from coterie.model.attention.sparse.interface import SparsePattern


class StridedPattern(SparsePattern):
    """Settings of strided attention."""

    kind: Literal["strided"] = "strided"
    stride: int = Field(default=32, ge=1, description="length of the run and of the strides, l")

    def allows(self, query: Tensor, key: Tensor) -> Tensor:
        distance = query - key
        return (distance < self.stride) | (distance % self.stride == 0)

    def seen(self, at: Int[Tensor, " T"], latest: Int[Tensor, " T"]) -> Int[Tensor, " T"]:
        """Return how many of the latest positions are seen: the run, and the strides beyond."""
        strides = ((latest - 1) // self.stride).clamp(min=0)
        return latest.clamp(max=self.stride) + strides
