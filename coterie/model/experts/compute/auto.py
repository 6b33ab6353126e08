"""The computation that is usually fastest for the sizes and the device.

On a CPU a lone token goes the gather path (0.58–0.81 of the loop's time at widths 96–512; from four
tokens on it gains nothing), the others grouped products from 32 experts or a width of 384 on, the
loop below. Measured with SwiGLU experts on two x86 cores in float32, forward and backward, grouped
over loop: 8 experts at width 128 1.02, 16 at 256 1.02, 16 at 384 0.94, 7 at 512 0.91, 32 at 256
0.89, 64 at 128 0.80, 63 at 512 0.86. On other devices few pairs are gathered and the rest goes
through grouped products, neither of which needs sizes on the host; that half is not measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from coterie.foundation.settings import Settings
from coterie.model.experts.bodies import BodyPart
from coterie.model.experts.compute.gather import GatherComputation
from coterie.model.experts.compute.grouped import GroupedComputation
from coterie.model.experts.compute.interface import Computation
from coterie.model.experts.compute.loop import LoopComputation

FEW_PAIRS = 16
_MANY_EXPERTS = 32
_WIDE = 384


class AutoCompute(Settings):
    """Settings of the automatic choice."""

    kind: Literal["auto"] = "auto"

    def build(self) -> AutoComputation:
        """Return the function."""
        return AutoComputation()


class AutoComputation(Computation):
    """Chooses by the number of pairs, the device, the width and the number of experts."""

    def __init__(self) -> None:
        self._gather = GatherComputation()
        self._loop, self._grouped = LoopComputation(), GroupedComputation()

    def _mix(
        self,
        packs: Sequence[BodyPart],
        sizes: Sequence[int],
        x: Tensor,
        indices: Tensor,
        gates: Tensor,
        *,
        partial: bool,
    ) -> Tensor:
        """Compute by the gather path where there is little to sort, by sorting otherwise."""
        few = indices.shape[0] == 1 if x.device.type == "cpu" else indices.numel() <= FEW_PAIRS
        if few:
            return self._gather._mix(packs, sizes, x, indices, gates, partial=partial)
        return super()._mix(packs, sizes, x, indices, gates, partial=partial)

    def rows(
        self, pack: BodyPart, rows: Float[Tensor, "N D"], counts: Int[Tensor, " E"]
    ) -> Float[Tensor, "N D"]:
        """Compute rows sorted by expert."""
        large = counts.shape[0] >= _MANY_EXPERTS or rows.shape[1] >= _WIDE
        chosen = self._grouped if large or rows.device.type != "cpu" else self._loop
        return chosen.rows(pack, rows, counts)
