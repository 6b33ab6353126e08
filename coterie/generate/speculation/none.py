"""No speculation."""

from typing import Literal

from coterie.generate.speculation.interface import SpeculationSettings


class NoSpeculation(SpeculationSettings):
    """Guess nothing."""

    kind: Literal["none"] = "none"
