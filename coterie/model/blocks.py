"""A block: attention and a feed-forward layer, each normalised before and added to the stream.

Pre-norm residual blocks: Radford et al. 2019 (GPT-2); Xiong et al. 2020, arXiv:2002.04745.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.foundation.settings import Settings
from coterie.model.attention import Attention
from coterie.model.cache import AttentionCache
from coterie.model.count import Count
from coterie.model.experts import LayerRouting, RoutingMemory
from coterie.model.feedforward import FeedForward
from coterie.model.norm import Norm
from coterie.model.position import Rotation


class BlockSettings(Settings):
    """What one kind of layer does differently; None: as the model does."""

    attention: Attention | None = Field(default=None, description="this layer's attention")
    feedforward: FeedForward | None = Field(
        default=None, description="this layer's feed-forward part"
    )
    norm: Norm | None = Field(default=None, description="this layer's normalisation")


@dataclass(frozen=True)
class BlockPlan:
    """One layer with everything resolved."""

    attention: Attention
    feedforward: FeedForward
    norm: Norm

    def check(self, width: int) -> None:
        """Make sure that the layer can be built.

        Raises:
            ValueError: sizes that do not fit; the message says which.
        """
        self.attention.check(width)
        self.feedforward.check(width)

    def counts(self, name: str, width: int, context: int) -> Count:
        """Return its count."""
        parts = [
            self.norm.counts("attention_norm", width),
            self.attention.counts(width, context),
            self.norm.counts("feedforward_norm", width),
            self.feedforward.counts(width),
        ]
        return Count.of(name, "", parts)


class Block(nn.Module):
    """One layer of the decoder."""

    def __init__(self, plan: BlockPlan, width: int, layer: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = plan.norm.build(width)
        self.attention = plan.attention.build(width)
        self.feedforward_norm = plan.norm.build(width)
        self.feedforward = plan.feedforward.build(width, layer)
        self.dropout = dropout

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        rotate: Rotation | None = None,
        cache: AttentionCache | None = None,
        documents: Int[Tensor, "B T"] | None = None,
        valid: Bool[Tensor, "B T"] | None = None,
        memory: RoutingMemory | None = None,
    ) -> tuple[Float[Tensor, "B T D"], LayerRouting | None]:
        """Compute the layer.

        Args:
            x: the residual stream.
            rotate: turns queries and keys by their positions.
            cache: what this layer keeps of earlier positions.
            documents: the document of each token; no token sees another document.
            valid: which tokens count in the account of routing.
            memory: keeps the routing of a first pass for a second.
        """
        x = x + self._drop(self.attention(self.attention_norm(x), rotate, cache, documents))
        out, account = self.feedforward(self.feedforward_norm(x), valid, memory)
        return x + self._drop(out), account

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout) if self.dropout and self.training else x
