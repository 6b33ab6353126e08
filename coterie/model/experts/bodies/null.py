"""Null: an expert without weights, so that a token may be given less computation.

Zero-computation experts: Jin et al. 2024 (MoE++), arXiv:2410.07348, section 3.1. It answers zero
(the token passes by the layer) or a copy of its input.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from coterie.foundation.settings import Settings
from coterie.model.costs import Count
from coterie.model.experts.bodies.interface import BodyPart, Linear, Weights


class Null(Settings):
    """Settings of the null expert."""

    kind: Literal["null"] = "null"
    answer: Literal["zero", "copy"] = Field(default="zero", description="what it answers")

    def hidden(self, width: int) -> int:
        """Return its hidden channels: none."""
        return 0

    def counts(self, name: str, width: int) -> Count:
        """Return the count of one body: nothing."""
        return Count(name, self.kind)

    def build(self, width: int, experts: int | None = None) -> NullPart:
        """Return one body, or a pack of `experts` of them."""
        return NullPart(self, experts)


class NullPart(BodyPart):
    """Zero, or x itself."""

    names = ()

    def __init__(self, settings: Null, experts: int | None) -> None:
        super().__init__()
        self.experts = experts
        self.copies = settings.answer == "copy"

    def run(self, x: Tensor, weights: Weights, linear: Linear) -> Tensor:
        """Answer without computing."""
        return x if self.copies else torch.zeros_like(x)
