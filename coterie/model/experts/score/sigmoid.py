"""Sigmoid scores: each expert is scored by itself. DeepSeek-V3 2024, arXiv:2412.19437, eq. 15."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from coterie.foundation.settings import Settings

_EPSILON = 1e-20  # keeps the shares finite where every score has underflown


class SigmoidScore(Settings):
    """Settings of sigmoid scores."""

    kind: Literal["sigmoid"] = "sigmoid"

    def build(self) -> "SigmoidScorer":
        return SigmoidScorer()


class SigmoidScorer:
    """sigmoid of each logit."""

    def scores(self, logits: Float[Tensor, "N E"]) -> Float[Tensor, "N E"]:
        """Return each expert's score."""
        return torch.sigmoid(logits)

    def probabilities(self, scores: Float[Tensor, "N E"]) -> Float[Tensor, "N E"]:
        """Return the scores as shares of one."""
        return scores / (scores.sum(-1, keepdim=True) + _EPSILON)
