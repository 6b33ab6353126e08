"""Null: an expert without weights, so that a token may be given less computation.

Zero-computation experts: Jin et al. 2024 (MoE++), arXiv:2410.07348, section 3.1. It returns zero
(the token passes by the layer) or a copy of its input.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from coterie.foundation.settings import Settings
from coterie.model.costs import Count
from coterie.model.feedforward.interface import Linear, MLPPart, Weights


class NullMLP(Settings):
    """Settings of the null expert."""

    renamed = {"answer": "output"}

    kind: Literal["null"] = "null"
    output: Literal["zero", "copy"] = Field(
        default="zero", description="what it returns: zeros, or its input"
    )

    @property
    def label(self) -> str:
        return self.kind

    def hidden(self, width: int) -> int:
        return 0

    def counts(self, name: str, width: int) -> Count:
        return Count(name, self.label)

    def build(self, width: int, experts: int | None = None) -> "NullMLPPart":
        return NullMLPPart(self, experts)


class NullMLPPart(MLPPart):
    """Zero, or x itself."""

    names = ()
    outputs = frozenset()

    def __init__(self, settings: NullMLP, experts: int | None) -> None:
        super().__init__(None, 0, experts)
        self.copies = settings.output == "copy"

    def run(self, x: Tensor, weights: Weights, linear: Linear) -> Tensor:
        """Return zeros or x; neither weights nor the linear map are used."""
        return x if self.copies else torch.zeros_like(x)
