"""Dynamic top-k: as many experts as it takes to gather a given share of the router's probability.

Huang et al. 2024, "Harder tasks need more experts", arXiv:2403.07652, equations 3–5 and 7: experts
are taken by descending probability until their sum reaches `mass`; at least one, and here at most
`most`, so that a batch's cost has a bound. Its regulariser, the entropy of the probabilities, keeps
the router from even shares, which would always take all experts.
"""

from typing import Literal

import torch
from pydantic import Field

from coterie.foundation.settings import Settings
from coterie.model.experts.select.interface import Bias, Chosen, Scores, Selector, Shares
from coterie.model.experts.select.top_k import highest


class Dynamic(Settings):
    """Settings of dynamic top-k."""

    kind: Literal["dynamic"] = "dynamic"
    mass: float = Field(default=0.4, gt=0, le=1, description="probability to gather")
    most: int | None = Field(
        default=None, ge=1, description="experts at most; None: the layer's experts_per_token"
    )
    entropy: float = Field(
        default=0.0, ge=0, description="coefficient of the router's mean entropy, in nats"
    )

    def check(self, experts: int, experts_per_token: int) -> None:
        """Make sure that the two bounds agree.

        Raises:
            ValueError: they do not.
        """
        if self.most is not None and self.most != experts_per_token:
            raise ValueError(
                f"router.select.most={self.most} and experts_per_token={experts_per_token} are the "
                "same bound; give it once, as experts_per_token"
            )

    def build(self, experts: int, experts_per_token: int) -> "DynamicSelector":
        return DynamicSelector(self, experts, experts_per_token)


class DynamicSelector(Selector):
    """The fewest experts, best first, whose shares together reach the mass."""

    fixed = False

    def __init__(self, settings: Dynamic, experts: int, experts_per_token: int) -> None:
        super().__init__(experts_per_token)
        self.experts = experts
        self.mass = settings.mass
        self.entropy = settings.entropy

    @torch.no_grad()
    def __call__(self, scores: Scores, selection_bias: Bias, shares: Shares) -> Chosen:
        """Return the selected experts, best first; the number of experts stands for none."""
        ranked = scores if selection_bias is None else scores + selection_bias
        indices = highest(ranked, self.experts_per_token)
        gathered = shares(scores).gather(-1, indices).cumsum(-1)
        enough = gathered[:, :-1] >= self.mass  # already before this place
        return torch.cat((indices[:, :1], indices[:, 1:].masked_fill(enough, self.experts)), dim=-1)
