"""Wide: one hidden layer, four times the width unless told, with an activation of choice.

The shallow kind in a mixture of unequal experts; Vaswani et al. 2017, arXiv:1706.03762, section
3.3.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from coterie.model.experts.bodies.activation import ACTIVATIONS, ActivationName
from coterie.model.experts.bodies.interface import PlainPart, PlainSettings


class Wide(PlainSettings):
    """Settings of the wide body."""

    kind: Literal["wide"] = "wide"
    activation: ActivationName = Field(default="gelu", description="of the hidden layer")

    def build(self, width: int, experts: int | None = None) -> WidePart:
        """Return one body, or a pack of `experts` of them."""
        return WidePart(self, width, experts)


class WidePart(PlainPart):
    """down(activation(up(x)))."""

    def __init__(self, settings: Wide, width: int, experts: int | None) -> None:
        super().__init__(settings, width, experts)
        self.activate_hidden = ACTIVATIONS[settings.activation]

    def activate(self, x: Tensor) -> Tensor:
        """Return the activation that was chosen."""
        return self.activate_hidden(x)
