"""Softmax scores: experts compete, the scores of a token add up to one.

Shazeer et al. 2017, arXiv:1701.06538.
"""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from coterie.foundation.settings import Settings


class SoftmaxScore(Settings):
    """Settings of softmax scores."""

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
