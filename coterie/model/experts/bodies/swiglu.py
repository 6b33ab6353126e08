"""SwiGLU: a gated body with the SiLU (swish) activation. Shazeer 2020, arXiv:2002.05202."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from coterie.model.experts.bodies.interface import GatedPart, GatedSettings


class SwiGLU(GatedSettings):
    """Settings of SwiGLU."""

    kind: Literal["swiglu"] = "swiglu"

    def build(self, width: int, experts: int | None = None) -> SwiGLUPart:
        """Return one body, or a pack of `experts` of them."""
        return SwiGLUPart(self, width, experts)


class SwiGLUPart(GatedPart):
    """down(silu(gate(x)) ∘ up(x))."""

    def activate(self, x: Tensor) -> Tensor:
        """Return x·sigmoid(x)."""
        return F.silu(x)
