"""YaRN: fast pairs turn as trained, slow ones are interpolated, and logits are made sharper.

Peng et al. 2023, arXiv:2309.00071. A pair that makes more than `beta_fast` whole turns within the
original context is left alone, one that makes fewer than `beta_slow` turns 1 / factor as fast, and
in between the share of interpolation grows linearly with the pair's number.

Two factors stand apart, for implementations differ in which they use:

* `attention_factor` multiplies cosines and sines, so products of turned channels by its square and
  products of channels that are not turned not at all. By default 0.1 · ln(factor) + 1, as in the
  paper (section 3.4).
* `logit_factor` multiplies the whole product of query and key. By default 1.

DeepSeek-V2 and -V3 (arXiv:2405.04434, arXiv:2412.19437) give `mscale` m and `mscale_all_dim` a.
With f(s) = 0.1 · s · ln(factor) + 1 these mean attention_factor = f(m) / f(a) and logit_factor =
f(a)²; where a is 0 or left out, both are the default ones. `from_mscale` does that.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from coterie.model.position.scaling.interface import ScalingSettings, plain_frequencies


class YarnScaling(ScalingSettings):
    """Settings of YaRN."""

    kind: Literal["yarn"] = "yarn"
    factor: float = Field(ge=1, description="context wished for over the original one")
    original_context: int = Field(ge=1, description="tokens of the context trained on")
    beta_fast: float = Field(
        default=32.0, gt=0, description="turns within it from which a pair is left alone"
    )
    beta_slow: float = Field(
        default=1.0, gt=0, description="turns within it below which a pair is interpolated"
    )
    attention_factor: float | None = Field(
        default=None, gt=0, description="on cosines and sines; None: 0.1 ln(factor) + 1"
    )
    logit_factor: float | None = Field(
        default=None, gt=0, description="on every product of query and key; None: 1"
    )
    truncate: bool = Field(
        default=True, description="round the bounds between the pairs to whole pairs, outwards"
    )

    @model_validator(mode="after")
    def _ordered(self) -> "YarnScaling":
        if self.beta_slow > self.beta_fast:
            raise ValueError(
                f"beta_slow={self.beta_slow:g} must not be above beta_fast={self.beta_fast:g}"
            )
        return self

    @classmethod
    def from_mscale(
        cls, factor: float, original_context: int, mscale: float, mscale_all_dim: float
    ) -> "YarnScaling":
        """Return the settings that DeepSeek's two numbers mean; the betas are the default ones."""
        plain = cls(factor=factor, original_context=original_context)
        if not mscale_all_dim:
            return plain
        whole = sharpness(factor, mscale_all_dim)
        turned = sharpness(factor, mscale) / whole if mscale else None
        return plain.model_copy(update={"attention_factor": turned, "logit_factor": whole**2})

    @property
    def turn_scale(self) -> float:
        return self.attention_factor or sharpness(self.factor)

    @property
    def logit_scale(self) -> float:
        return self.logit_factor or 1.0

    @property
    def detail(self) -> str:
        return f"yarn × {self.factor:g} of {self.original_context}"

    def original(self, context: int) -> int:
        return self.original_context

    def extended(self, original: int, context: int) -> "YarnScaling":
        """Return the scaling from one context to another; given sharpnesses grow with its log."""
        factor = context / original
        update: dict[str, float | None] = {"factor": factor, "original_context": original}
        whole = math.sqrt(self.logit_scale)
        if self.logit_factor is not None:
            update["logit_factor"] = self._rescaled(whole, factor) ** 2
        if self.attention_factor is not None:
            turned = self._rescaled(self.attention_factor * whole, factor)
            update["attention_factor"] = turned / self._rescaled(whole, factor)
        return self.model_copy(update=update)

    def _rescaled(self, sharp: float, factor: float) -> float:
        """Return what a sharpness at the present factor is at another one."""
        if self.factor == 1.0:
            return sharp
        return sharpness(factor, (sharp - 1.0) / (0.1 * math.log(self.factor)))

    def frequencies(
        self, theta: float, channels: int, length: Float[Tensor, "*N 1"]
    ) -> Float[Tensor, " P"]:
        """Return the blend of θ^(−2i/n) and θ^(−2i/n) / factor."""
        plain = plain_frequencies(theta, channels)
        low, high = (self._pair(beta, theta, channels) for beta in (self.beta_fast, self.beta_slow))
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, channels - 1)
        if low == high:
            high += 0.001  # a step instead of a ramp
        pairs = torch.arange(channels // 2, dtype=torch.float64)
        slow = ((pairs - low) / (high - low)).clamp(0, 1)
        return plain / self.factor * slow + plain * (1 - slow)

    def _pair(self, turns: float, theta: float, channels: int) -> float:
        """Return the number of the pair that makes so many turns within the original context."""
        wavelength = self.original_context / (2 * math.pi * turns)
        return channels * math.log(wavelength) / (2 * math.log(theta))


def sharpness(factor: float, scale: float = 1.0) -> float:
    """Return 0.1 · scale · ln(factor) + 1, the square root of YaRN's inverse temperature."""
    return 0.1 * scale * math.log(factor) + 1.0
