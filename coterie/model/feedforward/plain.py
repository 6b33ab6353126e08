"""The plain MLP: one hidden layer. Vaswani et al. 2017, arXiv:1706.03762, section 3.3.

GPT-2 has `activation: gelu_tanh` with biases.
"""

from typing import Literal

from torch import Tensor

from coterie.model.feedforward.interface import Linear, Matrices, MLPPart, MLPSettings, Weights


class PlainMLP(MLPSettings):
    """Settings of a plain MLP."""

    kind: Literal["mlp"] = "mlp"

    def hidden(self, width: int) -> int:
        """Return the hidden channels: by default four times the width."""
        return self.width or 4 * width

    def matrices(self, width: int) -> Matrices:
        hidden = self.hidden(width)
        return ("up", width, hidden), ("down", hidden, width)

    def build(self, width: int, experts: int | None = None) -> "PlainMLPPart":
        return PlainMLPPart(self, width, experts)


class PlainMLPPart(MLPPart, matrices=("up", "down")):
    """down(activation(up(x)))."""

    def run(self, x: Tensor, weights: Weights, linear: Linear) -> Tensor:
        up, up_bias, down, down_bias = weights
        return linear(self.activate(linear(x, up, up_bias)), down, down_bias)
