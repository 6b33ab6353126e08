"""Independent dropout: each channel of each token by itself.

Srivastava et al. 2014, Dropout (JMLR 15): y = x·m / (1 − rate), m drawn from {0, 1}.
"""

from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.foundation.settings import Settings


class IndependentDropout(Settings):
    """Settings of independent dropout."""

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
