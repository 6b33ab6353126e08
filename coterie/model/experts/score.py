"""Scores: how router logits become the weight of each expert, a closed union."""

from typing import Annotated, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from coterie.foundation.settings import Settings, union


class SoftmaxScore(Settings):
    """Softmax scores: experts compete, the scores of a token add up to one.

    Shazeer et al. 2017, arXiv:1701.06538.
    """

    kind: Literal["softmax"] = "softmax"

    def build(self) -> "SoftmaxScorer":
        return SoftmaxScorer()


class SoftmaxScorer:
    """softmax over the experts."""

    def scores(self, logits: Float[Tensor, "N E"]) -> Float[Tensor, "N E"]:
        """Return each expert's score."""
        return logits.softmax(-1)

    def probabilities(self, scores: Float[Tensor, "N E"]) -> Float[Tensor, "N E"]:
        """Return the scores as shares of one, which they are."""
        return scores


_EPSILON = 1e-20  # keeps the shares finite where every score has underflown


class SigmoidScore(Settings):
    """Sigmoid scores: each expert is scored by itself. DeepSeek-V3, arXiv:2412.19437, eq. 15."""

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


Score = Annotated[SoftmaxScore | SigmoidScore, union(SoftmaxScore, SigmoidScore)]
