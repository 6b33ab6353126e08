"""Dynamic NTK-aware scaling: the base grows with a text that is longer than the original context.

emozilla 2023 (a public note on bloc97's; arXiv:2309.00071, section 3.3): for a text of L tokens and
an original context of C,
    θ' = θ · (factor · L / C − (factor − 1))^(n / (n − 2)).
Short texts are read exactly as in training. With factor 1 it is NTK-aware scaling by L / C.

Every position turns differently once the text has grown, so beyond the original context keys that
were turned earlier may not be kept: `stable` says so, and generation then reads the text anew.
"""

from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from coterie.model.position.scaling.interface import ScalingSettings, check_pairs, plain_frequencies


class DynamicScaling(ScalingSettings):
    """Settings of dynamic NTK-aware scaling."""

    kind: Literal["dynamic"] = "dynamic"
    factor: float = Field(ge=1, description="how strongly the base grows with the text")
    original_context: int = Field(ge=1, description="tokens up to which nothing changes")

    @property
    def stable(self) -> int:
        return self.original_context

    @property
    def detail(self) -> str:
        return f"dynamic × {self.factor:g} beyond {self.original_context}"

    def check(self, channels: int) -> None:
        check_pairs(channels, self.kind)

    def original(self, context: int) -> int:
        return self.original_context

    def extended(self, original: int, context: int) -> "DynamicScaling":
        update = {"factor": context / original, "original_context": original}
        return self.model_copy(update=update)

    def frequencies(
        self, theta: float, channels: int, length: Float[Tensor, "*N 1"]
    ) -> Float[Tensor, "*N P"]:
        """Return θ'^(−2i/n) for texts of these lengths."""
        long = length.double().clamp(min=self.original_context) / self.original_context
        stretched = self.factor * long - (self.factor - 1)
        return plain_frequencies(theta * stretched ** (channels / (channels - 2)), channels)
