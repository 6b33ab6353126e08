"""Squared ReLU: a plain body with the activation max(x, 0)². So et al. 2021, arXiv:2109.08668."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from coterie.model.experts.bodies.activation import squared_relu
from coterie.model.experts.bodies.interface import PlainPart, PlainSettings


class SquaredReLU(PlainSettings):
    """Settings of the squared ReLU body."""

    kind: Literal["squared_relu"] = "squared_relu"

    def build(self, width: int, experts: int | None = None) -> SquaredReLUPart:
        """Return one body, or a pack of `experts` of them."""
        return SquaredReLUPart(self, width, experts)


class SquaredReLUPart(PlainPart):
    """down(relu(up(x))²)."""

    def activate(self, x: Tensor) -> Tensor:
        """Return max(x, 0)²."""
        return squared_relu(x)
