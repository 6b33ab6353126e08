"""Deep: two hidden layers in sequence, narrower than a wide body's one.

By default each has twice the width's channels, so that the matrices hold as many values as those of
a wide body: D·2D + 2D·2D + 2D·D = 8D² = 2·D·4D.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from coterie.model.costs import Count, linear
from coterie.model.experts.bodies.activation import ACTIVATIONS, ActivationName
from coterie.model.experts.bodies.interface import BodyPart, BodySettings, Linear, Weights


class Deep(BodySettings):
    """Settings of the deep body."""

    kind: Literal["deep"] = "deep"
    activation: ActivationName = Field(default="gelu", description="of both hidden layers")

    def hidden(self, width: int) -> int:
        """Return the channels of each hidden layer: by default twice the width."""
        return self.width or 2 * width

    def counts(self, name: str, width: int) -> Count:
        """Return the count of one body."""
        hidden = self.hidden(width)
        parts = [
            linear("up", width, hidden, bias=self.bias),
            linear("middle", hidden, hidden, bias=self.bias),
            linear("down", hidden, width, bias=self.bias),
        ]
        return Count.of(name, self.kind, parts)

    def build(self, width: int, experts: int | None = None) -> DeepPart:
        """Return one body, or a pack of `experts` of them."""
        return DeepPart(self, width, experts)


class DeepPart(BodyPart):
    """down(activation(middle(activation(up(x)))))."""

    names = ("up", "up_bias", "middle", "middle_bias", "down", "down_bias")
    roles = {
        "up": "matrix", "middle": "matrix", "down": "matrix",
        "up_bias": "bias", "middle_bias": "bias", "down_bias": "bias",
    }  # fmt: skip
    outputs = frozenset({"down"})

    def __init__(self, settings: Deep, width: int, experts: int | None) -> None:
        super().__init__()
        self.experts = experts
        self.activate = ACTIVATIONS[settings.activation]
        hidden = settings.hidden(width)
        self._matrix("up", hidden, width, bias=settings.bias)
        self._matrix("middle", hidden, hidden, bias=settings.bias)
        self._matrix("down", width, hidden, bias=settings.bias)

    def run(self, x: Tensor, weights: Weights, linear: Linear) -> Tensor:
        """Compute the deep body."""
        up, up_bias, middle, middle_bias, down, down_bias = weights
        assert up is not None
        assert middle is not None
        assert down is not None
        hidden = self.activate(linear(x, up, up_bias))
        hidden = self.activate(linear(hidden, middle, middle_bias))
        return linear(hidden, down, down_bias)
