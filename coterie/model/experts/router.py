"""The router: scores every expert for every token, selects some and says how much each counts.

Computed in at least float32 whatever the model computes in: small differences decide selections.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.foundation.settings import Settings
from coterie.model.count import Count, linear
from coterie.model.experts.score import Score, SoftmaxScore
from coterie.model.experts.select import Select, TopK
from coterie.model.part import Part

_EPSILON = 1e-20  # keeps gates finite where every selected score has underflown


class RouterSettings(Settings):
    """Settings of the router."""

    score: Score = Field(default=SoftmaxScore(), description="how logits become scores")
    select: Select = Field(default=TopK(), description="which experts a token goes to")
    renormalise: bool | None = Field(
        default=None,
        description="divide the selected scores by their sum; None: with two experts or more a "
        "token. With one it would leave the router without a gradient",
    )
    scale: float = Field(default=1.0, gt=0, description="factor on the routed experts' sum")
    z_loss: float = Field(
        default=0.0, ge=0, description="coefficient of the squared log-sum-exp of logits"
    )

    def check(self, experts_per_token: int) -> None:
        """Make sure that the router can learn.

        Raises:
            ValueError: a single expert's score would be divided by itself.
        """
        if self.renormalise and experts_per_token == 1:
            raise ValueError(
                "router.renormalise with experts_per_token=1 makes every gate 1: the router would "
                "get no gradient; leave it out or set it to false"
            )

    def build(self, width: int, experts: int, experts_per_token: int) -> Router:
        """Return the module."""
        return Router(self, width, experts, experts_per_token)

    def counts(self, width: int, experts: int) -> Count:
        """Return its count."""
        return linear("router", width, experts)


class Routing(NamedTuple):
    """What the router decided for N tokens.

    Attributes:
        logits: of every expert, [N, E].
        scores: of every expert, [N, E].
        indices: selected experts, [N, k].
        gates: what their outputs are multiplied with, [N, k].
    """

    logits: Tensor
    scores: Tensor
    indices: Tensor
    gates: Tensor


class Router(Part):
    """A linear map to one logit per expert, and what follows from the logits."""

    roles = {"weight": "router"}

    def __init__(
        self, settings: RouterSettings, width: int, experts: int, experts_per_token: int
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(experts, width))
        self.scorer = settings.score.build()
        self.selector = settings.select.build(experts_per_token)
        renormalise = settings.renormalise
        self.renormalise = experts_per_token > 1 if renormalise is None else renormalise
        self.scale = settings.scale

    def forward(
        self,
        x: Float[Tensor, "N D"],
        bias: Float[Tensor, " E"] | None = None,
        indices: Int[Tensor, "N k"] | None = None,
    ) -> Routing:
        """Route N tokens.

        Args:
            x: the tokens.
            bias: added to scores when selecting, and nowhere else.
            indices: the selection made before, when these tokens are computed a second time.
        """
        with torch.autocast(x.device.type, enabled=False):
            x = x if x.dtype == torch.float64 else x.float()
            logits = F.linear(x, self.weight.to(x.dtype))
            scores = self.scorer.scores(logits)
            if indices is None:
                indices = self.selector(scores.detach(), bias)
            gates = scores.gather(-1, indices)
            if self.renormalise:
                gates = gates / (gates.sum(-1, keepdim=True) + _EPSILON)
            return Routing(logits, scores, indices, gates * self.scale)
