"""The loop: one expert after the other, each on its slice of the rows.

The packed weights are unbound once: indexing them expert by expert would give every expert a
gradient of the whole pack's size.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from coterie.foundation.settings import Settings
from coterie.model.experts.kernel.interface import ExpertKernel
from coterie.model.mlp import MLPPart


class LoopKernel(Settings):
    """Settings of the loop."""

    kind: Literal["loop"] = "loop"

    def build(self) -> "Loop":
        return Loop()


class Loop(ExpertKernel):
    """Calls each expert that has rows; the others get a zero gradient."""

    def rows(
        self, pack: MLPPart, rows: Float[Tensor, "N D"], counts: Int[Tensor, " E"]
    ) -> Float[Tensor, "M D"]:
        """Compute rows sorted by expert."""
        sizes = counts.tolist()
        rows = rows[: sum(sizes)]
        packed = pack.weights()
        weights = zip(*(_unbound(each, len(sizes)) for each in packed), strict=True)
        outputs = [
            pack.run(slice_, expert, F.linear)
            for slice_, expert, size in zip(rows.split(sizes), weights, sizes, strict=True)
            if size
        ]
        if not outputs:  # no token came to any expert of this pack
            first = next(each for each in packed if each is not None)
            return pack.run(rows, tuple(w if w is None else w[0] for w in packed), F.linear).to(
                torch.promote_types(rows.dtype, first.dtype)
            )
        return torch.cat(outputs) if len(outputs) > 1 else outputs[0]


def _unbound(weight: Tensor | None, experts: int) -> tuple[Tensor | None, ...]:
    return (None,) * experts if weight is None else weight.unbind(0)
