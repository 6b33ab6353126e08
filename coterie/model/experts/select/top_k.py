"""Top-k: a token goes to the k experts of highest score."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coterie.foundation.settings import Settings


class TopK(Settings):
    """Settings of plain top-k selection; k is the layer's `experts_per_token`."""

    kind: Literal["top_k"] = "top_k"

    def build(self, experts_per_token: int) -> TopKSelector:
        """Return the function."""
        return TopKSelector(experts_per_token)


class TopKSelector:
    """The k highest scores, a bias for balance added first."""

    def __init__(self, experts_per_token: int) -> None:
        self.experts_per_token = experts_per_token

    @torch.no_grad()
    def __call__(
        self, scores: Float[Tensor, "N E"], bias: Float[Tensor, " E"] | None
    ) -> Int[Tensor, "N k"]:
        """Return the selected experts of each token, best first.

        Args:
            scores: of every expert.
            bias: added to the scores for the choice alone, never to what an expert's output is
                multiplied with.
        """
        ranked = scores if bias is None else scores + bias
        if self.experts_per_token == 1:
            return ranked.argmax(-1, keepdim=True)  # several times faster than topk on the CPU
        return ranked.topk(self.experts_per_token, dim=-1).indices
