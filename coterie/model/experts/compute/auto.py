"""The computation that is usually fastest here: the loop on a CPU, grouped products on a GPU."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from coterie.foundation.settings import Settings
from coterie.model.experts.bodies import BodyPart
from coterie.model.experts.compute.grouped import GroupedComputation
from coterie.model.experts.compute.loop import LoopComputation


class AutoCompute(Settings):
    """Settings of the automatic choice."""

    kind: Literal["auto"] = "auto"

    def build(self) -> AutoComputation:
        """Return the function."""
        return AutoComputation()


class AutoComputation:
    """Chooses by the device that the rows are on."""

    def __init__(self) -> None:
        self._loop, self._grouped = LoopComputation(), GroupedComputation()

    def __call__(
        self, pack: BodyPart, rows: Float[Tensor, "N D"], counts: Int[Tensor, " E"]
    ) -> Float[Tensor, "N D"]:
        """Compute rows sorted by expert."""
        chosen = self._loop if rows.device.type == "cpu" else self._grouped
        return chosen(pack, rows, counts)
