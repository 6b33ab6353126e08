"""Deep: two hidden layers in sequence, narrower than a wide MLP's one.

By default each has twice the width's channels, so that the matrices hold as many values as those of
a wide MLP: D·2D + 2D·2D + 2D·D = 8D² = 2·D·4D.
"""

from typing import Literal

from torch import Tensor

from coterie.model.feedforward.interface import Linear, Matrices, MLPPart, MLPSettings, Weights


class DeepMLP(MLPSettings):
    """Settings of the deep MLP; `width` is that of each hidden layer."""

    kind: Literal["deep"] = "deep"

    def hidden(self, width: int) -> int:
        """Return the channels of each hidden layer: by default twice the width."""
        return self.width or 2 * width

    def matrices(self, width: int) -> Matrices:
        hidden = self.hidden(width)
        return ("up", width, hidden), ("middle", hidden, hidden), ("down", hidden, width)

    def build(self, width: int, experts: int | None = None) -> "DeepMLPPart":
        return DeepMLPPart(self, width, experts)


class DeepMLPPart(MLPPart, matrices=("up", "middle", "down")):
    """down(activation(middle(activation(up(x)))))."""

    def run(self, x: Tensor, weights: Weights, linear: Linear) -> Tensor:
        up, up_bias, middle, middle_bias, down, down_bias = weights
        hidden = self.activate(linear(x, up, up_bias))
        hidden = self.activate(linear(hidden, middle, middle_bias))
        return linear(hidden, down, down_bias)
