"""Structured dropout: runs of neighbouring channels of a token dropped together.

Ghiasi, Lin & Le 2018 (DropBlock), arXiv:1810.12890, for channels in place of an image's places and
with fixed runs: what a dropped channel knew cannot be read off its neighbours.
"""

from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.foundation.settings import Settings


class StructuredDropout(Settings):
    """Settings of structured dropout."""

    kind: Literal["structured"] = "structured"
    rate: float = Field(default=0.0, ge=0, lt=1, description="share of blocks dropped in training")
    size: int = Field(default=8, ge=1, description="neighbouring channels dropped together")

    def check(self, width: int) -> None:
        """Make sure that blocks fill the width.

        Raises:
            ValueError: they do not.
        """
        if width % self.size:
            raise ValueError(
                f"dropout blocks of {self.size} channels do not fill a width of {width}; "
                "choose a divisor of it"
            )

    def build(self) -> "StructuredDropoutPart":
        return StructuredDropoutPart(self.rate, self.size)


class StructuredDropoutPart(nn.Module):
    """Drops blocks of channels while training; the others grow, so that the mean is kept."""

    def __init__(self, rate: float, size: int) -> None:
        super().__init__()
        self.rate = rate
        self.size = size

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        if not (self.rate and self.training):
            return x
        blocks = x.unflatten(-1, (-1, self.size))
        kept = F.dropout(blocks.new_ones(*blocks.shape[:-1], 1), self.rate)
        return (blocks * kept).flatten(-2)
