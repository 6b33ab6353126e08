"""Gated MLPs: three matrices, one of them gating. Shazeer 2020, arXiv:2002.05202.

SwiGLU is the default, `activation: silu`; GeGLU is `gelu`, ReGLU `relu`.
"""

from typing import Literal

from pydantic import Field
from torch import Tensor

from coterie.model.feedforward.activation import Activation
from coterie.model.feedforward.interface import Linear, Matrices, MLPPart, MLPSettings, Weights


class GatedMLP(MLPSettings):
    """Settings of a gated MLP."""

    kind: Literal["gated"] = "gated"
    activation: Activation = Field(default="silu", description="of the gate")

    def hidden(self, width: int) -> int:
        """Return the hidden channels: by default 8/3 of the width, so that the size is as usual."""
        return self.width or -(-8 * width // 24) * 8

    def matrices(self, width: int) -> Matrices:
        hidden = self.hidden(width)
        return ("gate", width, hidden), ("up", width, hidden), ("down", hidden, width)

    def build(self, width: int, experts: int | None = None) -> "GatedMLPPart":
        return GatedMLPPart(self, width, experts)


class GatedMLPPart(MLPPart, matrices=("gate", "up", "down")):
    """down(activation(gate(x)) ∘ up(x))."""

    def run(self, x: Tensor, weights: Weights, linear: Linear) -> Tensor:
        gate, gate_bias, up, up_bias, down, down_bias = weights
        hidden = self.activate(linear(x, gate, gate_bias)) * linear(x, up, up_bias)
        return linear(hidden, down, down_bias)
