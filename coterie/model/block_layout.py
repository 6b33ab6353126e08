"""How a block lays out its two branches, attention and feed-forward: a closed union.

A block layout takes the stream and the branches and returns the new stream. It decides what each
branch reads and how their outputs are added, not what they compute.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.foundation.settings import Settings, union
from coterie.model.costs import Count, linear
from coterie.model.experts import RouterStats
from coterie.model.part import Part

Norm = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Branches:
    """The two branches of one block in one forward pass; each maps [B, T, D] to [B, T, D].

    Attributes:
        attention_norm: normalises what attention reads.
        attention: mixes tokens; dropout and stochastic depth included.
        feedforward_norm: normalises what the feed-forward branch reads; None: as attention's.
        feedforward: works on each token, likewise; its router statistics come with it.
    """

    attention_norm: Norm
    attention: Callable[[Tensor], Tensor]
    feedforward_norm: Norm | None
    feedforward: Callable[[Tensor], tuple[Tensor, RouterStats | None]]


class BlockLayoutPart(Part, ABC):
    """Base of block layouts."""

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "B T D"], branches: Branches
    ) -> tuple[Float[Tensor, "B T D"], RouterStats | None]:
        """Return the stream after the block, and its router's statistics."""


class Sequential(Settings):
    """One branch after the other: the feed-forward branch reads what attention has added.

    Pre-norm residual blocks: Radford et al. 2019 (GPT-2); Xiong et al. 2020, arXiv:2002.04745.
    """

    kind: Literal["sequential"] = "sequential"

    @property
    def shares_norm(self) -> bool:
        """Whether both branches read one normalised input."""
        return False

    def build(self, width: int) -> "SequentialPart":
        return SequentialPart()

    def counts(self, width: int) -> tuple[Count, ...]:
        """Return the counts of its own parameters: there are none."""
        return ()


class SequentialPart(BlockLayoutPart):
    """x + attention(norm(x)), and then the same with the feed-forward branch."""

    def forward(
        self, x: Float[Tensor, "B T D"], branches: Branches
    ) -> tuple[Float[Tensor, "B T D"], RouterStats | None]:
        assert branches.feedforward_norm is not None
        x = x + branches.attention(branches.attention_norm(x))
        update, stats = branches.feedforward(branches.feedforward_norm(x))
        return x + update, stats


class Parallel(Settings):
    """Both branches side by side on the same input, added up or mixed by a learned gate.

    Without a gate x + attention(n) + feedforward(n), n = norm(x): Wang & Komatsuzaki 2021 (GPT-J);
    Chowdhery et al. 2022 (PaLM), arXiv:2204.02311, section 2. With a gate, each token says how much
    of either it takes: x + g∘attention(n) + (1 − g)∘feedforward(n), g = sigmoid(W·n + b), as
    highway networks mix (Srivastava et al. 2015, arXiv:1505.00387). A gate of W = b = 0 takes half
    of each.
    """

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


BlockLayout = Annotated[Sequential | Parallel, union(Sequential, Parallel)]
