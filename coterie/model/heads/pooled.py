"""The pooled head: one vector per text, for search and for comparing texts.

The mean over the text's tokens (Reimers & Gurevych 2019, arXiv:1908.10084) or its last token, which
alone has seen the whole of it (Neelakantan et al. 2022, arXiv:2201.10005); then, where asked for, a
projection and a length of 1, so that products are cosines.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.foundation.settings import Settings
from coterie.model.costs import Count
from coterie.model.part import Part


class PooledSettings(Settings):
    """Settings of the pooled head."""

    pool: Literal["mean", "last"] = Field(
        default="mean", description="over all tokens of the text, or its last one"
    )
    dim: int | None = Field(
        default=None, ge=1, description="channels projected to; None: the width, no projection"
    )
    normalise: bool = Field(default=True, description="give each vector the length 1")

    def build(self, width: int) -> "PooledHead":
        return PooledHead(self, width)

    def counts(self, width: int) -> Count:
        """Return its count: a projection of each text, which no single token costs anything."""
        return Count("pooled", self.pool, width * (self.dim or 0))


class PooledHead(Part):
    """Pools the hidden states of each row."""

    roles = {"projection": "matrix"}

    def __init__(self, settings: PooledSettings, width: int) -> None:
        super().__init__()
        self.settings = settings
        dim = settings.dim
        self.projection = None if dim is None else nn.Parameter(torch.empty(dim, width))

    def forward(
        self, hidden: Float[Tensor, "B T D"], valid: Bool[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B E"]:
        """Return each row's vector.

        Args:
            valid: which tokens are text and no padding; None: all. A row without any gives zeros.
        """
        if valid is None:
            valid = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
        pooled = _mean(hidden, valid) if self.settings.pool == "mean" else _last(hidden, valid)
        if self.projection is not None:
            pooled = F.linear(pooled, self.projection)
        return F.normalize(pooled, dim=-1) if self.settings.normalise else pooled


def _mean(hidden: Float[Tensor, "B T D"], valid: Bool[Tensor, "B T"]) -> Float[Tensor, "B D"]:
    weights = valid.to(hidden.dtype)[..., None]
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)


def _last(hidden: Float[Tensor, "B T D"], valid: Bool[Tensor, "B T"]) -> Float[Tensor, "B D"]:
    at = torch.arange(valid.shape[1], device=valid.device)
    last = at.where(valid, -1).amax(1)
    found = hidden[torch.arange(valid.shape[0], device=valid.device), last.clamp(min=0)]
    return found.where((last >= 0)[:, None], 0.0)
