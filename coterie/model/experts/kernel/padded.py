"""Padded batches: every expert's rows filled up to those of the busiest, then batched products.

The room is that of the largest load, so nothing is dropped; its price is work on zeros.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coterie.foundation.settings import Settings
from coterie.model.experts.kernel.interface import ExpertKernel
from coterie.model.mlp import MLPPart


class PaddedKernel(Settings):
    """Settings of padded batches."""

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
