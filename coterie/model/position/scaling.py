"""How rotary positions reach beyond the context a model was trained on: a closed union.

A member says how fast each pair of channels turns (`frequencies`), by what cosines and sines are
multiplied (`turn_scale`) and by what every product of a query and a key is (`logit_scale`). Factors
are those of lengths: the context wished for over the original one.
"""

import math
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from coterie.foundation.settings import Settings, union


class ScalingSettings(Settings):
    """Base of the scalings: turns nothing differently; each kind overrides what it changes."""

    @property
    def stable(self) -> int | None:
        """Up to how many positions frequencies do not depend on a text's length; None: always."""
        return None

    @property
    def turn_scale(self) -> float:
        """Factor on cosines and sines, so on turned queries and turned keys alike."""
        return 1.0

    @property
    def logit_scale(self) -> float:
        """Factor on every product of a query and a key, turned channels or not."""
        return 1.0

    @property
    def detail(self) -> str:
        """What it is in a few words; empty where it changes nothing."""
        return ""

    def check(self, channels: int) -> None:
        """Make sure that so many turned channels of a head will do.

        Raises:
            ValueError: they are too few.
        """

    def original(self, context: int) -> int:
        """Return the context before it was extended to `context`."""
        return context

    def extended(self, original: int, context: int) -> "ScalingSettings":
        """Return the same kind of scaling from one context to another, its other choices kept."""
        return self

    def frequencies(
        self, theta: float, channels: int, length: Float[Tensor, "*N 1"]
    ) -> Float[Tensor, "*M P"]:
        """Return the angle in radians by which each of P pairs turns per position, in float64.

        Args:
            theta: base of the wavelengths.
            channels: turned channels of a head, two per pair.
            length: tokens of the text; only a scaling that is not `stable` looks at it.
        """
        return plain_frequencies(theta, channels)


def plain_frequencies(theta: float | Tensor, channels: int) -> Float[Tensor, "*N P"]:
    """Return θ^(−2i/n) for the pairs i of n channels, in float64 (arXiv:2104.09864)."""
    return theta ** -(torch.arange(0, channels, 2, dtype=torch.float64) / channels)


def check_pairs(channels: int, kind: str) -> None:
    """Make sure that there are two pairs at least, where a formula divides by channels − 2.

    Raises:
        ValueError: there is one only.
    """
    if channels < 4:
        raise ValueError(
            f"scaling {kind} stretches the slowest pair and leaves the fastest, so it needs at "
            f"least 4 turned channels per head, not {channels}"
        )


class NoScaling(ScalingSettings):
    """No scaling: positions as they were trained."""

    kind: Literal["none"] = "none"


class LinearScaling(ScalingSettings):
    """Linear scaling: every position is divided by the factor, so that N positions fit where 1 did.

    Position interpolation: Chen et al. 2023, arXiv:2306.15595. Neighbours come closer together than
    they ever were in training, so it asks for some training on the longer context.
    """

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


class NTKScaling(ScalingSettings):
    """NTK-aware scaling: a larger base, so that the slowest pair is stretched by the factor.

    bloc97 2023 (“NTK-aware scaled RoPE”, a public note; written up in arXiv:2309.00071, section
    3.1): θ' = θ · factor^(n / (n − 2)) for n turned channels. The fastest pair, which tells
    neighbours apart, turns as before, and the slowest exactly 1 / factor as fast. It is the same as
    plain rotary positions with the base θ', which is how formats that do not know it can hold it
    (`base`).
    """

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


class DynamicScaling(ScalingSettings):
    """Dynamic NTK-aware scaling: the base grows with a text that is longer than the original
    context.

    emozilla 2023 (a public note on bloc97's; arXiv:2309.00071, section 3.3): for a text of L tokens
    and an original context of C,
        θ' = θ · (factor · L / C − (factor − 1))^(n / (n − 2)).
    Short texts are read exactly as in training. With factor 1 it is NTK-aware scaling by L / C.

    Every position turns differently once the text has grown, so beyond the original context keys
    that were turned earlier may not be kept: `stable` says so, and generation then reads the text
    anew.
    """

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


class YarnScaling(ScalingSettings):
    """YaRN: fast pairs turn as trained, slow ones are interpolated, and logits are made sharper.

    Peng et al. 2023, arXiv:2309.00071. A pair that makes more than `beta_fast` whole turns within
    the original context is left alone, one that makes fewer than `beta_slow` turns 1 / factor as
    fast, and in between the share of interpolation grows linearly with the pair's number.

    Two factors stand apart, for implementations differ in which they use:

    * `attention_factor` multiplies cosines and sines, so products of turned channels by its square
      and those of other channels not at all. By default 0.1 · ln(factor) + 1, as in the paper
      (section 3.4).
    * `logit_factor` multiplies the whole product of query and key. By default 1.

    DeepSeek-V2 and -V3 (arXiv:2405.04434, arXiv:2412.19437) give `mscale` m and `mscale_all_dim` a.
    With f(s) = 0.1 · s · ln(factor) + 1 these mean attention_factor = f(m) / f(a) and logit_factor
    = f(a)²; where a is 0 or left out, both are the default ones. `from_mscale` does that.
    """

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


class Llama3Scaling(ScalingSettings):
    """Llama 3's scaling: short wavelengths stay, long ones are interpolated, those between are
    blended.

    Llama Team 2024, arXiv:2407.21783 (as in the models' published code). Wavelengths are held
    against the original context C: a pair with a wavelength below C / high_frequency_factor is left
    alone, one above C / low_frequency_factor turns 1 / factor as fast, and between the two the
    share of the plain frequency is linear in C / wavelength.

    The defaults of its two bounds are Llama 3.1's.
    """

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


Scaling = Annotated[
    NoScaling | LinearScaling | NTKScaling | DynamicScaling | YarnScaling | Llama3Scaling,
    union(NoScaling, LinearScaling, NTKScaling, DynamicScaling, YarnScaling, Llama3Scaling),
]
