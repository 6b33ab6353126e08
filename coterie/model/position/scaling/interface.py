"""What rotary positions ask of a scaling."""

import torch
from jaxtyping import Float
from torch import Tensor

from coterie.foundation.settings import Settings


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
