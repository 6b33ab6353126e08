"""GELU: a plain body with the activation x·Φ(x). Hendrycks & Gimpel 2016, arXiv:1606.08415."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from coterie.model.experts.bodies.interface import PlainPart, PlainSettings


class GELU(PlainSettings):
    """Settings of the GELU body; GPT-2 uses the tanh form."""

    kind: Literal["gelu"] = "gelu"
    approximate: Literal["none", "tanh"] = Field(default="none", description="how GELU is computed")

    def build(self, width: int, experts: int | None = None) -> GELUPart:
        """Return one body, or a pack of `experts` of them."""
        return GELUPart(self, width, experts)


class GELUPart(PlainPart):
    """down(gelu(up(x)))."""

    def __init__(self, settings: GELU, width: int, experts: int | None) -> None:
        super().__init__(settings, width, experts)
        self.approximate = settings.approximate

    def activate(self, x: Tensor) -> Tensor:
        """Return x·Φ(x)."""
        return F.gelu(x, approximate=self.approximate)
