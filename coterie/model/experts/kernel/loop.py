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


class PaddedKernel(Settings):
    """Padded batches: every expert's rows filled up to those of the busiest, then batched products.

    The room is that of the largest load, so nothing is dropped; its price is work on zeros.
    """

    kind: Literal["padded"] = "padded"

    def build(self) -> "Padded":
        return Padded()


class Padded(ExpertKernel):
    """One batched product per matrix of the MLP."""

    def rows(
        self, pack: MLPPart, rows: Float[Tensor, "N D"], counts: Int[Tensor, " E"]
    ) -> Float[Tensor, "M D"]:
        """Compute rows sorted by expert."""
        experts = counts.shape[0]
        busiest, number = torch.stack((counts.max(), counts.sum())).tolist()
        room, rows = max(busiest, 1), rows[:number]
        starts = counts.cumsum(0) - counts
        # Row i of the expert that begins at s stands at place e·room + i − s of the padded rows.
        shift = torch.arange(experts, device=counts.device) * room - starts
        places = torch.arange(number, device=counts.device) + shift.repeat_interleave(
            counts, output_size=number
        )
        padded = rows.new_zeros(experts * room, rows.shape[1]).index_copy(0, places, rows)
        out = pack.run(padded.view(experts, room, -1), pack.weights(), batched_linear)
        return out.flatten(0, 1).index_select(0, places)


def batched_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return x[e]·weight[e]ᵀ + bias[e] for every e."""
    if bias is None:
        return torch.bmm(x, weight.mT)
    return torch.baddbmm(bias[:, None], x, weight.mT)
