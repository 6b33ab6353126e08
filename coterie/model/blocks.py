"""A block: attention and a feed-forward layer, each normalised before and added to the stream.

How the two follow each other is the block layout's business; dropout and stochastic depth act on
what each of them adds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from coterie.foundation.settings import Settings
from coterie.model.attention import Attention
from coterie.model.block_layout import BlockLayout, Branches, Sequential
from coterie.model.context import EMPTY, ForwardContext
from coterie.model.costs import Count
from coterie.model.dropout import Dropout, StochasticDepth
from coterie.model.experts import RouterStats
from coterie.model.feedforward import FeedForward
from coterie.model.norm import Norm


class BlockSettings(Settings):
    """What one kind of layer does differently; None: as the model does."""

    renamed = {"arrangement": "block_layout"}

    attention: Attention | None = Field(default=None, description="this layer's attention")
    feedforward: FeedForward | None = Field(
        default=None, description="this layer's feed-forward part"
    )
    norm: Norm | None = Field(default=None, description="this layer's normalisation")
    block_layout: BlockLayout | None = Field(default=None, description="this layer's block layout")


@dataclass(frozen=True)
class BlockPlan:
    """One layer with everything resolved."""

    attention: Attention
    feedforward: FeedForward
    norm: Norm
    block_layout: BlockLayout = field(default_factory=Sequential)

    def check(self, width: int) -> None:
        """Make sure that the layer can be built.

        Raises:
            ValueError: sizes that do not fit; the message says which.
        """
        self.attention.check(width)
        self.feedforward.check(width)

    def counts(self, name: str, width: int, context: int) -> Count:
        parts = [
            self.norm.counts("attention_norm", width),
            self.attention.counts(width, context),
            self.feedforward.counts(width),
            *self.block_layout.counts(width),
        ]
        if not self.block_layout.shares_norm:
            parts.insert(2, self.norm.counts("feedforward_norm", width))
        return Count.of(name, "", parts)


class Block(nn.Module):
    """One layer of the decoder.

    Args:
        dropout: on what each branch adds.
        depth_rate: how often each branch is left out of a row in training.
    """

    def __init__(
        self, plan: BlockPlan, width: int, dropout: Dropout, depth_rate: float = 0.0
    ) -> None:
        super().__init__()
        shared = plan.block_layout.shares_norm
        self.attention_norm = plan.norm.build(width)
        self.attention = plan.attention.build(width)
        self.feedforward_norm = None if shared else plan.norm.build(width)
        self.feedforward = plan.feedforward.build(width)
        self.block_layout = plan.block_layout.build(width)
        self.dropout = dropout.build()
        self.depth = StochasticDepth(depth_rate)

    def forward(
        self, x: Float[Tensor, "B T D"], context: ForwardContext = EMPTY
    ) -> tuple[Float[Tensor, "B T D"], RouterStats | None]:
        """Compute the layer on the residual stream x; return it and the router's statistics."""

        def attend(normal: Tensor) -> Tensor:
            return self.depth(self.dropout(self.attention(normal, context)))

        def feed(normal: Tensor) -> tuple[Tensor, RouterStats | None]:
            update, stats = self.feedforward(normal, context)
            return self.depth(self.dropout(update)), stats

        branches = Branches(self.attention_norm, attend, self.feedforward_norm, feed)
        return self.block_layout(x, branches)
