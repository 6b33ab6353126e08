"""Both branches side by side on the same input, added up or mixed by a learned gate.

Without a gate x + attention(n) + feedforward(n), n = norm(x): Wang & Komatsuzaki 2021 (GPT-J);
Chowdhery et al. 2022 (PaLM), arXiv:2204.02311, section 2. With a gate, each token says how much of
either it takes: x + g∘attention(n) + (1 − g)∘feedforward(n), g = sigmoid(W·n + b), as highway
networks mix (Srivastava et al. 2015, arXiv:1505.00387). A gate of W = b = 0 takes half of each.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.foundation.settings import Settings
from coterie.model.block_layout.interface import BlockLayoutPart, Branches
from coterie.model.costs import Count, linear
from coterie.model.experts import RouterStats


class Parallel(Settings):
    """Settings of the parallel layout."""

    kind: Literal["parallel"] = "parallel"
    gate: Literal["none", "token", "channel"] = Field(
        default="none",
        description="branches added up, or mixed: one share per token, or one per channel of it",
    )
    gate_bias: bool = Field(default=True, description="the gate has a bias")
    norms: Literal["shared", "own"] = Field(
        default="shared",
        description="one norm for both branches, or one each; a gate reads the first",
    )

    @property
    def shares_norm(self) -> bool:
        """Whether both branches read one normalised input."""
        return self.norms == "shared"

    def gate_channels(self, width: int) -> int:
        """Return how many shares a token has: none, one or one per channel."""
        return {"none": 0, "token": 1, "channel": width}[self.gate]

    def build(self, width: int) -> "ParallelPart":
        return ParallelPart(self, width)

    def counts(self, width: int) -> tuple[Count, ...]:
        """Return the count of the gate, if there is one."""
        channels = self.gate_channels(width)
        return (linear("gate", width, channels, bias=self.gate_bias),) if channels else ()


class ParallelPart(BlockLayoutPart):
    """Computes both branches and adds them to the stream, through the gate if there is one."""

    roles = {"gate": "router", "gate_bias": "bias"}

    def __init__(self, settings: Parallel, width: int) -> None:
        super().__init__()
        channels = settings.gate_channels(width)
        biased = channels and settings.gate_bias
        self.gate = nn.Parameter(torch.empty(channels, width)) if channels else None
        self.gate_bias = nn.Parameter(torch.empty(channels)) if biased else None

    def forward(
        self, x: Float[Tensor, "B T D"], branches: Branches
    ) -> tuple[Float[Tensor, "B T D"], RouterStats | None]:
        normal = branches.attention_norm(x)
        own = branches.feedforward_norm
        attended = branches.attention(normal)
        fed, stats = branches.feedforward(normal if own is None else own(x))
        if self.gate is None:
            return x + attended + fed, stats
        share = torch.sigmoid(F.linear(normal, self.gate, self.gate_bias))
        # share·a + (1 − share)·f, with one product fewer
        return x + fed + share * (attended - fed), stats
