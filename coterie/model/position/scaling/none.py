"""No scaling: positions as they were trained."""

from typing import Literal

from coterie.model.position.scaling.interface import ScalingSettings


class NoScaling(ScalingSettings):
    """Settings of plain rotary positions."""

    kind: Literal["none"] = "none"
