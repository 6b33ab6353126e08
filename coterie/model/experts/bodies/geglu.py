"""GeGLU: a gated body with the GELU activation. Shazeer 2020, arXiv:2002.05202."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from coterie.model.experts.bodies.interface import GatedPart, GatedSettings


class GeGLU(GatedSettings):
    """Settings of GeGLU."""

    kind: Literal["geglu"] = "geglu"
    approximate: Literal["none", "tanh"] = Field(default="none", description="how GELU is computed")

    def build(self, width: int, experts: int | None = None) -> GeGLUPart:
        """Return one body, or a pack of `experts` of them."""
        return GeGLUPart(self, width, experts)


class GeGLUPart(GatedPart):
    """down(gelu(gate(x)) ∘ up(x))."""

    def __init__(self, settings: GeGLU, width: int, experts: int | None) -> None:
        super().__init__(settings, width, experts)
        self.approximate = settings.approximate

    def activate(self, x: Tensor) -> Tensor:
        """Return x·Φ(x)."""
        return F.gelu(x, approximate=self.approximate)
