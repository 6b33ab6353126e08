"""The value head: one number per position, as a critic estimates what is still to come.

Ziegler et al. 2019, arXiv:1909.08593: a scalar linear head on the final hidden states.
"""

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.foundation.settings import Settings
from coterie.model.costs import Count, linear
from coterie.model.part import Part


class ValueSettings(Settings):
    """Settings of the value head."""

    bias: bool = Field(default=True, description="add a learned number")

    def build(self, width: int) -> "ValueHead":
        return ValueHead(self, width)

    def counts(self, width: int) -> Count:
        return linear("value", width, 1, bias=self.bias)


class ValueHead(Part):
    """A linear map to one number."""

    roles = {"weight": "head", "bias": "bias"}

    def __init__(self, settings: ValueSettings, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, width))
        self.bias = nn.Parameter(torch.empty(1)) if settings.bias else None

    def forward(self, hidden: Float[Tensor, "B T D"]) -> Float[Tensor, "B T"]:
        return F.linear(hidden, self.weight, self.bias).squeeze(-1)
