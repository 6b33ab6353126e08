"""Dropout: what training sets to zero at random, a closed union; and stochastic depth.

A bare number is the rate of independent dropout: `dropout: 0.1`.
"""

from typing import Annotated, Any, Literal

from jaxtyping import Float
from pydantic import BeforeValidator, Field
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.foundation.settings import Settings, union


class IndependentDropout(Settings):
    """Independent dropout: each channel of each token by itself.

    Srivastava et al. 2014, Dropout (JMLR 15): y = x·m / (1 − rate), m drawn from {0, 1}.
    """

    kind: Literal["independent"] = "independent"
    rate: float = Field(default=0.0, ge=0, lt=1, description="share of values dropped in training")

    def check(self, width: int) -> None:
        """Accept every width."""

    def build(self) -> "IndependentDropoutPart":
        return IndependentDropoutPart(self.rate)


class IndependentDropoutPart(nn.Module):
    """Drops single values while training; the others grow, so that the mean is kept."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return F.dropout(x, self.rate) if self.rate and self.training else x


class StructuredDropout(Settings):
    """Structured dropout: runs of neighbouring channels of a token dropped together.

    Ghiasi, Lin & Le 2018 (DropBlock), arXiv:1810.12890, for channels in place of an image's places
    and with fixed runs: what a dropped channel knew cannot be read off its neighbours.
    """

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


def depth_rate(rate: float, layer: int, layers: int) -> float:
    """Return the rate of layer number `layer` (from 0) of `layers`; the last one has the whole."""
    return rate * (layer + 1) / layers


class StochasticDepth(nn.Module):
    """In training, a branch of a block is left out for whole rows of the batch.

    Huang et al. 2016, arXiv:1603.09382: the rate grows linearly with depth, layer l of L (from 1)
    is left out with rate · l / L. What stays is divided by the share that stays, so that
    evaluation, which leaves nothing out, sees the mean. Each branch draws for itself. A row that is
    left out is computed all the same: routers see and count its tokens as those of any other row.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, update: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        if not (self.rate and self.training):
            return update
        return update * F.dropout(update.new_ones(update.shape[0], 1, 1), self.rate)


def _from_number(value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return {"kind": "independent", "rate": value} if number else value


Dropout = Annotated[
    IndependentDropout | StructuredDropout,
    union(IndependentDropout, StructuredDropout),
    BeforeValidator(_from_number),
]
