"""Group-limited top-k: experts stand in groups, and a token may use only its best groups.

Meant to bound how many devices a token's experts live on. DeepSeek-V2, arXiv:2405.04434, section
2.2.2, ranks a group by its highest score (`max`); DeepSeek-V3, arXiv:2412.19437, section 2.1.2, by
the sum of its two highest (`top_two_sum`), the balance bias included both times.
"""

from typing import Literal

import torch
from pydantic import Field

from coterie.foundation.settings import Settings
from coterie.model.experts.select.interface import Bias, Chosen, Scores, Selector, Shares
from coterie.model.experts.select.top_k import highest

_EXCLUDED = -1e4  # far below every score, yet finite


class GroupLimited(Settings):
    """Settings of group-limited selection; groups are runs of equally many neighbouring experts."""

    kind: Literal["group_limited"] = "group_limited"
    groups: int = Field(ge=1, description="groups that the experts are cut into")
    groups_per_token: int = Field(ge=1, description="groups that a token may use")
    group_score: Literal["max", "top_two_sum"] = Field(
        default="top_two_sum", description="what a group is ranked by"
    )

    def check(self, experts: int, experts_per_token: int) -> None:
        """Make sure that the groups can be formed and hold experts enough.

        Raises:
            ValueError: they cannot, or do not.
        """
        size, rest = divmod(experts, self.groups)
        if rest:
            raise ValueError(f"{experts} experts cannot be cut into {self.groups} equal groups")
        if self.groups_per_token > self.groups:
            raise ValueError(
                f"groups_per_token={self.groups_per_token}, but there are only {self.groups} groups"
            )
        if experts_per_token > size * self.groups_per_token:
            raise ValueError(
                f"{self.groups_per_token} groups hold {size * self.groups_per_token} experts, "
                f"fewer than experts_per_token={experts_per_token}"
            )
        if self.group_score == "top_two_sum" and size < 2:
            raise ValueError("group_score “top_two_sum” needs two experts or more in a group")

    def build(self, experts: int, experts_per_token: int) -> "GroupLimitedSelector":
        return GroupLimitedSelector(self, experts_per_token)


class GroupLimitedSelector(Selector):
    """The k highest scores among the experts of the best groups."""

    def __init__(self, settings: GroupLimited, experts_per_token: int) -> None:
        super().__init__(experts_per_token)
        self.groups = settings.groups
        self.groups_per_token = settings.groups_per_token
        self.counted = {"max": 1, "top_two_sum": 2}[settings.group_score]

    @torch.no_grad()
    def __call__(self, scores: Scores, selection_bias: Bias, shares: Shares) -> Chosen:
        """Return the selected experts of each token, best first."""
        ranked = scores if selection_bias is None else scores + selection_bias
        grouped = ranked.unflatten(-1, (self.groups, -1))
        # An excluded expert must not take its whole group with it.
        judged = grouped if selection_bias is None else grouped.clamp(min=_EXCLUDED)
        best = highest(judged.topk(self.counted, dim=-1).values.sum(-1), self.groups_per_token)
        closed = torch.ones_like(grouped[..., 0], dtype=torch.bool).scatter_(-1, best, False)
        open_only = grouped.masked_fill(closed[..., None], -torch.inf).flatten(-2)
        indices = highest(open_only, self.experts_per_token)
        if selection_bias is None:
            return indices
        # With experts excluded, the best groups may hold fewer than are asked for.
        missing = open_only.gather(-1, indices).isneginf()
        return indices.masked_fill(missing, scores.shape[-1])
