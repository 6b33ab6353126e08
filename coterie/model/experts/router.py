"""The router: scores every expert for every token, selects some and weighs them.

Computed in at least float32 whatever the model computes in: small differences decide selections.

Routers of published models, in these settings (`experts_per_token` ≥ 2):

- Mixtral: the defaults.
- OLMoE, Qwen2-MoE, Qwen3-MoE: `renormalise` as their `norm_topk_prob`.
- DeepSeek-V2: `renormalise: false`, `scale` as `routed_scaling_factor`; `topk_method` “greedy” is
  `top_k`, “group_limited_greedy” is `group_limited` with `group_score: max`.
- DeepSeek-V3, Glm4-MoE: `score: sigmoid`, `group_limited` with `group_score: top_two_sum`,
  `renormalise` as `norm_topk_prob`, `scale` as `routed_scaling_factor`, and the layer's
  `balance: bias`, whose `selection_bias` is their `e_score_correction_bias`.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.foundation.settings import Settings
from coterie.model.costs import Count, linear
from coterie.model.experts.noise import Noise, NoNoise
from coterie.model.experts.score import Score, SoftmaxScore
from coterie.model.experts.select import Select, TopK
from coterie.model.part import Part

_EPSILON = 1e-20  # keeps gates finite where every selected score has underflown


class RouterSettings(Settings):
    """Settings of the router."""

    score: Score = Field(default=SoftmaxScore(), description="how logits become scores")
    select: Select = Field(default=TopK(), description="which experts a token goes to")
    noise: Noise = Field(default=NoNoise(), description="random noise in the router while training")
    renormalise: bool | None = Field(
        default=None,
        description="divide the selected scores by their sum; None: where every token goes to two "
        "experts or more. With one it would leave the router without a gradient",
    )
    scale: float = Field(default=1.0, gt=0, description="factor on the routed experts' sum")
    z_loss: float = Field(
        default=0.0, ge=0, description="coefficient of the squared log-sum-exp of logits"
    )

    def check(self, experts: int, experts_per_token: int) -> None:
        """Make sure that experts can be selected and that the router can learn.

        Raises:
            ValueError: the selection does not fit the number of experts, or a single expert's score
                would be divided by itself.
        """
        if self.renormalise and experts_per_token == 1:
            raise ValueError(
                "router.renormalise with experts_per_token=1 makes every gate 1: the router would "
                "get no gradient; leave it out or set it to false"
            )
        self.select.check(experts, experts_per_token)

    def build(self, width: int, experts: int, experts_per_token: int) -> "Router":
        return Router(self, width, experts, experts_per_token)

    def counts(self, width: int, experts: int) -> Count:
        """Return its count."""
        parts = (linear("logits", width, experts), *self.noise.counts(width, experts))
        return Count.of("router", f"{width} → {experts}", parts)


class Routing(NamedTuple):
    """What the router decided for N tokens.

    Attributes:
        logits: of every expert, [N, E].
        scores: of every expert, [N, E].
        indices: selected experts, [N, k]; E where there is none.
        gates: what their outputs are multiplied with, [N, k]; 0 where there is none.
        partial: whether indices may name no expert.
    """

    logits: Tensor
    scores: Tensor
    indices: Tensor
    gates: Tensor
    partial: bool


class Router(Part):
    """A linear map to one logit per expert, and what follows from the logits."""

    roles = {"weight": "router"}

    def __init__(
        self, settings: RouterSettings, width: int, experts: int, experts_per_token: int
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(experts, width))
        self.noise = settings.noise.build(width, experts)
        self.scorer = settings.score.build()
        self.selector = settings.select.build(experts, experts_per_token)
        renormalise = settings.renormalise
        several = experts_per_token > 1 and self.selector.fixed
        self.renormalise = several if renormalise is None else renormalise
        self.scale = settings.scale

    def forward(
        self,
        x: Float[Tensor, "N D"],
        selection_bias: Float[Tensor, " E"] | None = None,
        indices: Int[Tensor, "N k"] | None = None,
        excluded_experts: Bool[Tensor, " E"] | None = None,
    ) -> Routing:
        """Route N tokens.

        Args:
            selection_bias: added to scores when selecting, and nowhere else.
            indices: the selection made before, when these tokens are computed a second time.
            excluded_experts: may not be selected.
        """
        with torch.autocast(x.device.type, enabled=False):
            x = x if x.dtype == torch.float64 else x.float()
            logits = F.linear(self.noise.inputs(x), self.weight.to(x.dtype))
            logits = self.noise.logits(logits, x)
            scores = self.scorer.scores(logits)
            if indices is None:
                indices = self.select(scores.detach(), selection_bias, excluded_experts)
            partial = excluded_experts is not None or not self.selector.fixed
            gates = _gather(scores, indices) if partial else scores.gather(-1, indices)
            if self.renormalise:
                gates = gates / (gates.sum(-1, keepdim=True) + _EPSILON)
            return Routing(logits, scores, indices, gates * self.scale, partial)

    def select(
        self,
        scores: Float[Tensor, "N E"],
        selection_bias: Float[Tensor, " E"] | None,
        excluded: Bool[Tensor, " E"] | None = None,
    ) -> Int[Tensor, "N k"]:
        """Return the experts that tokens of these scores go to."""
        if excluded is None:
            return self.selector(scores, selection_bias, self.scorer.probabilities)
        bias = scores.new_zeros(excluded.shape).masked_fill(excluded, -torch.inf)
        bias = bias if selection_bias is None else bias + selection_bias
        indices = self.selector(scores, bias, self.scorer.probabilities)
        return indices.masked_fill(F.pad(excluded, (0, 1))[indices], scores.shape[-1])


def _gather(scores: Float[Tensor, "N E"], indices: Int[Tensor, "N k"]) -> Float[Tensor, "N k"]:
    """Return the selected scores, zero where no expert is selected."""
    missing = indices == scores.shape[-1]
    return scores.gather(-1, indices.masked_fill(missing, 0)).masked_fill(missing, 0.0)
