"""Linear scaling: every position is divided by the factor, so that N positions fit where 1 did.

Position interpolation: Chen et al. 2023, arXiv:2306.15595. Neighbours come closer together than
they ever were in training, so it asks for some training on the longer context.
"""

from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from coterie.model.position.scaling.interface import ScalingSettings, plain_frequencies


class LinearScaling(ScalingSettings):
    """Settings of linear scaling."""

    kind: Literal["linear"] = "linear"
    factor: float = Field(ge=1, description="context wished for over the original one")

    @property
    def detail(self) -> str:
        return f"linear × {self.factor:g}"

    def original(self, context: int) -> int:
        return round(context / self.factor)

    def extended(self, original: int, context: int) -> "LinearScaling":
        return self.model_copy(update={"factor": context / original})

    def frequencies(
        self, theta: float, channels: int, length: Float[Tensor, "*N 1"]
    ) -> Float[Tensor, " P"]:
        """Return θ^(−2i/n) / factor."""
        return plain_frequencies(theta, channels) / self.factor
