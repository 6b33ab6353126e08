"""Llama 3's scaling: short wavelengths stay, long ones are interpolated, those between are blended.

Llama Team 2024, arXiv:2407.21783 (as in the models' published code). Wavelengths are held against
the original context C: a pair with a wavelength below C / high_frequency_factor is left alone, one
above C / low_frequency_factor turns 1 / factor as fast, and between the two the share of the plain
frequency is linear in C / wavelength.
"""

import math
from typing import Literal

from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from coterie.model.position.scaling.interface import ScalingSettings, plain_frequencies


class Llama3Scaling(ScalingSettings):
    """Settings of Llama 3's scaling; the defaults of its two bounds are Llama 3.1's."""

    kind: Literal["llama3"] = "llama3"
    factor: float = Field(ge=1, description="by how much slow pairs are slowed down")
    original_context: int = Field(ge=1, description="tokens of the context trained on")
    low_frequency_factor: float = Field(
        default=1.0, gt=0, description="turns within it below which a pair is interpolated"
    )
    high_frequency_factor: float = Field(
        default=4.0, gt=0, description="turns within it from which a pair is left alone"
    )

    @model_validator(mode="after")
    def _ordered(self) -> "Llama3Scaling":
        if self.low_frequency_factor >= self.high_frequency_factor:
            raise ValueError(
                f"low_frequency_factor={self.low_frequency_factor:g} must be below "
                f"high_frequency_factor={self.high_frequency_factor:g}"
            )
        return self

    @property
    def detail(self) -> str:
        return f"llama3 × {self.factor:g} of {self.original_context}"

    def original(self, context: int) -> int:
        return self.original_context

    def extended(self, original: int, context: int) -> "Llama3Scaling":
        update = {"factor": context / original, "original_context": original}
        return self.model_copy(update=update)

    def frequencies(
        self, theta: float, channels: int, length: Float[Tensor, "*N 1"]
    ) -> Float[Tensor, " P"]:
        """Return the blend of θ^(−2i/n) and θ^(−2i/n) / factor."""
        plain = plain_frequencies(theta, channels)
        turns = self.original_context * plain / (2 * math.pi)
        low, high = self.low_frequency_factor, self.high_frequency_factor
        kept = ((turns - low) / (high - low)).clamp(0, 1)
        return (1 - kept) * plain / self.factor + kept * plain
