"""No noise: the same token always goes the same way."""

from typing import Literal

from coterie.foundation.settings import Settings
from coterie.model.costs import Count
from coterie.model.experts.noise.interface import NoisePart


class NoNoise(Settings):
    """Settings of no noise."""

    kind: Literal["none"] = "none"

    def counts(self, width: int, experts: int) -> tuple[Count, ...]:
        return ()

    def build(self, width: int, experts: int) -> NoisePart:
        """Return a module that does nothing."""
        return NoisePart()
