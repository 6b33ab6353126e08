"""Top-k: a token goes to the k experts of highest score.

With k = 1 and the score as the gate it is Switch's routing: Fedus, Zoph & Shazeer 2021,
arXiv:2101.03961, section 2.1.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coterie.foundation.settings import Settings
from coterie.model.experts.select.interface import Bias, Chosen, Scores, Selector, Shares


class TopK(Settings):
    """Settings of plain top-k selection; k is the layer's `experts_per_token`."""

    kind: Literal["top_k"] = "top_k"

    def check(self, experts: int, experts_per_token: int) -> None:
        """Accept every number."""

    def build(self, experts: int, experts_per_token: int) -> "TopKSelector":
        return TopKSelector(experts_per_token)


class TopKSelector(Selector):
    """The k highest scores, the selection bias added first."""

    @torch.no_grad()
    def __call__(self, scores: Scores, selection_bias: Bias, shares: Shares) -> Chosen:
        """Return the selected experts of each token, best first."""
        return highest(
            scores if selection_bias is None else scores + selection_bias, self.experts_per_token
        )


def highest(ranked: Float[Tensor, "N E"], number: int) -> Int[Tensor, "N number"]:
    """Return where the highest values of each row are, best first."""
    if number == 1:
        return ranked.argmax(-1, keepdim=True)  # several times faster than topk on the CPU
    return ranked.topk(number, dim=-1).indices
