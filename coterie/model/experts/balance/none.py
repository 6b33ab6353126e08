"""No balance: the router is left to itself."""

from typing import Literal

from coterie.foundation.settings import Settings
from coterie.model.experts.balance.interface import BalancePart


class NoBalance(Settings):
    """Settings of no balance."""

    kind: Literal["none"] = "none"

    def build(self, experts: int) -> BalancePart:
        """Return a module that does nothing."""
        return BalancePart()
