"""Hybrid: a deep and a wide path over the same input, added up.

The deep path has two hidden layers in sequence, the wide path one that is twice as broad.
"""

from typing import Literal

from pydantic import Field
from torch import Tensor

from coterie.model.feedforward.interface import Linear, Matrices, MLPPart, MLPSettings, Weights


class HybridMLP(MLPSettings):
    """Settings of the hybrid MLP; `width` is the wide path's."""

    kind: Literal["hybrid"] = "hybrid"
    deep_width: int | None = Field(
        default=None, ge=1, description="channels of the deep path's layers; None: half of `width`"
    )

    def hidden(self, width: int) -> int:
        """Return the channels of the wide path's layer: by default twice the width."""
        return self.width or 2 * width

    def matrices(self, width: int) -> Matrices:
        """Return the shapes of the deep path's matrices, then of the wide path's."""
        wide = self.hidden(width)
        deep = self.deep_width or max(wide // 2, 1)
        return (
            ("deep_up", width, deep), ("deep_middle", deep, deep), ("deep_down", deep, width),
            ("wide_up", width, wide), ("wide_down", wide, width),
        )  # fmt: skip

    def build(self, width: int, experts: int | None = None) -> "HybridMLPPart":
        return HybridMLPPart(self, width, experts)


_MATRICES = ("deep_up", "deep_middle", "deep_down", "wide_up", "wide_down")


class HybridMLPPart(MLPPart, matrices=_MATRICES):
    """deep_down(a(deep_middle(a(deep_up(x))))) + wide_down(a(wide_up(x)))."""

    outputs = frozenset({"deep_down", "wide_down"})

    def run(self, x: Tensor, weights: Weights, linear: Linear) -> Tensor:
        up, up_bias, middle, middle_bias, down, down_bias, *wide = weights
        wide_up, wide_up_bias, wide_down, wide_down_bias = wide
        hidden = self.activate(linear(x, up, up_bias))
        deep = linear(self.activate(linear(hidden, middle, middle_bias)), down, down_bias)
        hidden = self.activate(linear(x, wide_up, wide_up_bias))
        return deep + linear(hidden, wide_down, wide_down_bias)
