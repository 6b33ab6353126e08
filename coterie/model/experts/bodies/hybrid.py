"""Hybrid: a deep and a wide path over the same input, both added to the stream.

The deep path has two hidden layers in sequence, the wide path one that is twice as broad.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from coterie.model.costs import Count, linear
from coterie.model.experts.bodies.activation import ACTIVATIONS, ActivationName
from coterie.model.experts.bodies.interface import BodyPart, BodySettings, Linear, Weights


class Hybrid(BodySettings):
    """Settings of the hybrid body; `width` is the wide path's."""

    kind: Literal["hybrid"] = "hybrid"
    deep_width: int | None = Field(
        default=None, ge=1, description="channels of the deep path's layers; None: half of `width`"
    )
    activation: ActivationName = Field(default="gelu", description="of all hidden layers")

    def hidden(self, width: int) -> int:
        """Return the channels of the wide path's layer: by default twice the width."""
        return self.width or 2 * width

    def deep_hidden(self, width: int) -> int:
        """Return the channels of each of the deep path's layers."""
        return self.deep_width or max(self.hidden(width) // 2, 1)

    def counts(self, name: str, width: int) -> Count:
        """Return the count of one body."""
        wide, deep = self.hidden(width), self.deep_hidden(width)
        parts = [
            linear("deep_up", width, deep, bias=self.bias),
            linear("deep_middle", deep, deep, bias=self.bias),
            linear("deep_down", deep, width, bias=self.bias),
            linear("wide_up", width, wide, bias=self.bias),
            linear("wide_down", wide, width, bias=self.bias),
        ]
        return Count.of(name, self.kind, parts)

    def build(self, width: int, experts: int | None = None) -> HybridPart:
        """Return one body, or a pack of `experts` of them."""
        return HybridPart(self, width, experts)


class HybridPart(BodyPart):
    """deep_down(a(deep_middle(a(deep_up(x))))) + wide_down(a(wide_up(x)))."""

    names = (
        "deep_up", "deep_up_bias", "deep_middle", "deep_middle_bias", "deep_down",
        "deep_down_bias", "wide_up", "wide_up_bias", "wide_down", "wide_down_bias",
    )  # fmt: skip
    roles = {
        "deep_up": "matrix", "deep_middle": "matrix", "deep_down": "matrix",
        "wide_up": "matrix", "wide_down": "matrix",
        "deep_up_bias": "bias", "deep_middle_bias": "bias", "deep_down_bias": "bias",
        "wide_up_bias": "bias", "wide_down_bias": "bias",
    }  # fmt: skip
    outputs = frozenset({"deep_down", "wide_down"})

    def __init__(self, settings: Hybrid, width: int, experts: int | None) -> None:
        super().__init__()
        self.experts = experts
        self.activate = ACTIVATIONS[settings.activation]
        wide, deep = settings.hidden(width), settings.deep_hidden(width)
        self._matrix("deep_up", deep, width, bias=settings.bias)
        self._matrix("deep_middle", deep, deep, bias=settings.bias)
        self._matrix("deep_down", width, deep, bias=settings.bias)
        self._matrix("wide_up", wide, width, bias=settings.bias)
        self._matrix("wide_down", width, wide, bias=settings.bias)

    def run(self, x: Tensor, weights: Weights, linear: Linear) -> Tensor:
        """Compute both paths and add them."""
        up, up_bias, middle, middle_bias, down, down_bias, *wide = weights
        wide_up, wide_up_bias, wide_down, wide_down_bias = wide
        assert up is not None
        assert middle is not None
        assert down is not None
        assert wide_up is not None
        assert wide_down is not None
        hidden = self.activate(linear(x, up, up_bias))
        deep = linear(self.activate(linear(hidden, middle, middle_bias)), down, down_bias)
        return deep + linear(self.activate(linear(x, wide_up, wide_up_bias)), wide_down,
                             wide_down_bias)  # fmt: skip
