"""The kernel that is usually fastest for the sizes and the device.

On a CPU a lone token goes the gather path (0.58–0.81 of the loop's time at widths 96–512; from four
tokens on it gains nothing), the others grouped products from 32 experts or a width of 384 on, the
loop below. Measured with SwiGLU experts on two x86 cores in float32, forward and backward, grouped
over loop: 8 experts at width 128 1.02, 16 at 256 1.02, 16 at 384 0.94, 7 at 512 0.91, 32 at 256
0.89, 64 at 128 0.80, 63 at 512 0.86. On other devices few pairs are gathered and the rest goes
through grouped products, neither of which needs sizes on the host; that half is not measured.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coterie.foundation.settings import Settings
from coterie.model.experts.dispatch import Dispatcher
from coterie.model.experts.kernel.gather import Gather
from coterie.model.experts.kernel.grouped import Grouped
from coterie.model.experts.kernel.interface import ExpertKernel, Packs
from coterie.model.experts.kernel.loop import Loop
from coterie.model.mlp import MLPPart

FEW_PAIRS = 16
_MANY_EXPERTS = 32
_WIDE = 384


class AutoKernel(Settings):
    """Settings of the automatic choice."""

    kind: Literal["auto"] = "auto"

    def build(self) -> "Auto":
        return Auto()


class Auto(ExpertKernel):
    """Chooses by the number of pairs, the device, the width and the size of each pack."""

    def __init__(self) -> None:
        self._gather, self._loop, self._grouped = Gather(), Loop(), Grouped()

    def chosen(
        self, packs: Packs, x: Tensor, indices: Tensor, dispatcher: Dispatcher
    ) -> ExpertKernel:
        """Return the kernel for these tokens; itself where packs may need different ones."""
        few = indices.shape[0] == 1 if x.device.type == "cpu" else indices.numel() <= FEW_PAIRS
        if torch.compiler.is_compiling() and not torch.is_grad_enabled():
            few = indices.numel() <= FEW_PAIRS  # what is compiled gathers without copying
        if few and dispatcher.local:
            return self._gather
        return self._for(packs[0], x) if len(packs) == 1 else self

    def rows(
        self, pack: MLPPart, rows: Float[Tensor, "N D"], counts: Int[Tensor, " E"]
    ) -> Float[Tensor, "M D"]:
        """Compute rows sorted by expert."""
        return self._for(pack, rows).rows(pack, rows, counts)

    def _for(self, pack: MLPPart, x: Tensor) -> ExpertKernel:
        # One that calls experts one by one would be left out of a compiled graph.
        large = pack.count >= _MANY_EXPERTS or x.shape[1] >= _WIDE or torch.compiler.is_compiling()
        return self._grouped if large or x.device.type != "cpu" else self._loop
