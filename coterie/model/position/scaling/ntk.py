"""NTK-aware scaling: a larger base, so that the slowest pair is stretched by the factor.

bloc97 2023 (“NTK-aware scaled RoPE”, a public note; written up in arXiv:2309.00071, section 3.1):
θ' = θ · factor^(n / (n − 2)) for n turned channels. The fastest pair, which tells neighbours apart,
turns as before, and the slowest exactly 1 / factor as fast. It is the same as plain rotary
positions with the base θ', which is how formats that do not know it can hold it (`base`).
"""

from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from coterie.model.position.scaling.interface import ScalingSettings, check_pairs, plain_frequencies


class NTKScaling(ScalingSettings):
    """Settings of NTK-aware scaling."""

    kind: Literal["ntk"] = "ntk"
    factor: float = Field(ge=1, description="context wished for over the original one")

    @property
    def detail(self) -> str:
        return f"ntk × {self.factor:g}"

    def check(self, channels: int) -> None:
        check_pairs(channels, self.kind)

    def original(self, context: int) -> int:
        return round(context / self.factor)

    def extended(self, original: int, context: int) -> "NTKScaling":
        return self.model_copy(update={"factor": context / original})

    def base(self, theta: float, channels: int) -> float:
        """Return the base θ' that plain rotary positions need to be these."""
        return theta * self.factor ** (channels / (channels - 2))

    def frequencies(
        self, theta: float, channels: int, length: Float[Tensor, "*N 1"]
    ) -> Float[Tensor, " P"]:
        """Return θ'^(−2i/n)."""
        return plain_frequencies(self.base(theta, channels), channels)
