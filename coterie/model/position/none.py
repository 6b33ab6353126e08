"""No positions: order is known only through the causal mask.

Kazemnejad et al. 2023, arXiv:2305.19466.
"""

from typing import Literal

from coterie.foundation.settings import Settings
from coterie.model.costs import Count
from coterie.model.position.interface import PositionPart


class NoPosition(Settings):
    """Settings of no positions."""

    kind: Literal["none"] = "none"

    def check(self, head_dim: int) -> None:
        """Accept every head size."""

    def build(self, width: int, context: int) -> PositionPart:
        """Return a module that neither adds nor turns anything."""
        return PositionPart()

    def counts(self, width: int, context: int) -> Count:
        return Count("position", self.kind)
