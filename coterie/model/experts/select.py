"""Selection: which experts a token goes to, a closed union."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from coterie.foundation.settings import Settings, union

Scores = Float[Tensor, "N E"]
Bias = Float[Tensor, " E"] | None
Chosen = Int[Tensor, "N k"]
Shares = Callable[[Tensor], Tensor]
"""Turns scores [N, E] into shares of one."""


class Selector(ABC):
    """Chooses [N, k] experts.

    Where a token goes to fewer than k, the places left over hold the number of experts, which is no
    expert: nothing is computed there and the gate is zero.

    Attributes:
        experts_per_token: at most how many for a token, k.
        fixed: whether every token goes to exactly k.
        entropy: coefficient of the mean entropy of the router's shares in what is minimised.
    """

    fixed: bool = True
    entropy: float = 0.0

    def __init__(self, experts_per_token: int) -> None:
        self.experts_per_token = experts_per_token

    @abstractmethod
    def __call__(self, scores: Scores, selection_bias: Bias, shares: Shares) -> Chosen:
        """Return the selected experts of each token, best first, without a gradient.

        Args:
            selection_bias: added to the scores for the choice alone, never to the gates; −∞ for an
                excluded expert.
            shares: how scores become shares of one.
        """


class TopK(Settings):
    """Top-k: a token goes to the k experts of highest score.

    With k = 1 and the score as the gate it is Switch's routing: Fedus, Zoph & Shazeer 2021,
    arXiv:2101.03961, section 2.1.

    k is the layer's `experts_per_token`.
    """

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


class Dynamic(Settings):
    """Dynamic top-k: as many experts as it takes to gather a given share of the router's
    probability.

    Huang et al. 2024, "Harder tasks need more experts", arXiv:2403.07652, equations 3–5 and 7:
    experts are taken by descending probability until their sum reaches `mass`; at least one, and
    here at most `most`, so that a batch's cost has a bound. Its regulariser, the entropy of the
    probabilities, keeps the router from even shares, which would always take all experts.
    """

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


_EXCLUDED = -1e4  # far below every score, yet finite


class GroupLimited(Settings):
    """Group-limited top-k: experts stand in groups, and a token may use only its best groups.

    Meant to bound how many devices a token's experts live on. DeepSeek-V2, arXiv:2405.04434,
    section 2.2.2, ranks a group by its highest score (`max`); DeepSeek-V3, arXiv:2412.19437,
    section 2.1.2, by the sum of its two highest (`top_two_sum`), the balance bias included both
    times.

    Groups are runs of equally many neighbouring experts.
    """

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


Select = Annotated[TopK | Dynamic | GroupLimited, union(TopK, Dynamic, GroupLimited)]
