"""What every part of one forward pass may need besides the tokens' vectors: one frozen object.

Rows of unequal length are aligned left: row b holds `lengths[b]` tokens, and what follows is
padding, which later tokens of the row never precede and no real token ever sees.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from coterie.batch import TokenBatch
from coterie.model.cache import AttentionCache, DecoderCache
from coterie.model.geometry import UnevenRows
from coterie.model.position import Rotation
from coterie.model.replay import Routes, RoutingReplay


@runtime_checkable
class Observer(Protocol):
    """Whoever watches a forward pass; what it is handed must not be changed."""

    def layer_done(self, layer: int, hidden: Float[Tensor, "B T D"]) -> None:
        """Look at the residual stream after a block."""
        ...


@runtime_checkable
class RunBlock(Protocol):
    """How a stream goes through a block, for whoever computes it otherwise than by a call."""

    def __call__(
        self, block: nn.Module, hidden: Float[Tensor, "B T D"], context: "ForwardContext"
    ) -> Float[Tensor, "B T D"]:
        """Return the stream after the block."""
        ...


@dataclass(frozen=True, eq=False)
class Section:
    """The part of a decoder that a pass goes through, where others compute the rest.

    Attributes:
        layers: the blocks that it computes.
        stream: what the block before them left; None: it begins with the tokens.
        ends: whether the last norm, the heads and the losses are part of it; otherwise the stream
            is returned as hidden states.
    """

    layers: range
    stream: Float[Tensor, "B T D"] | None
    ends: bool


@dataclass(frozen=True, eq=False)
class ForwardContext:
    """What a caller says about the tokens of one pass, and what the decoder adds for its parts.

    Attributes:
        documents: the document of each token, where rows hold several, each a run of one number:
            no token sees another document, and positions begin anew with each.
        positions: of each token; None: counted from the start of its document.
        lengths: real tokens of each row, the others being padding; None: all.
        valid: tokens that count in the routers' statistics and in each text's vector; None: those
            with a target, or all.
        cache: the past of the rows; the tokens become part of it.
        observers: called after each block, in order.
        router_stats: whether routers account for their choices; decoding has no use for it.
        run_block: computes each block in place of calling it, without router statistics; None:
            blocks are called.
        routes: the routers' choices, layer by layer: those that hold none are filled in, the others
            repeated; None: routers choose and nobody asks what.
        section: the part of the decoder to compute; None: the whole of it.
        document_starts: where each token's document begins, in packed rows that are read at once;
            the decoder fills it in.
        rows: where tokens of rows stand that have read unequally much; the decoder fills it in.
        rotation: how queries and keys are rotated; the decoder fills it in.
        kv_cache: this layer's part of the cache; the decoder fills it in.
        replay: keeps the routing of a first pass for a second; the decoder fills it in.
        attention_watch: handed each token's attention weights over the keys, averaged over heads,
            [B, T, S]; who looks into a layer fills it in. Not every attention can tell.
    """

    documents: Int[Tensor, "B T"] | None = None
    positions: Int[Tensor, "B T"] | None = None
    lengths: tuple[int, ...] | None = None
    valid: Bool[Tensor, "B T"] | None = None
    cache: DecoderCache | None = None
    observers: tuple[Observer, ...] = ()
    router_stats: bool = True
    run_block: RunBlock | None = None
    routes: Routes | None = None
    section: Section | None = None
    document_starts: Int[Tensor, "B T"] | None = None
    rows: UnevenRows | None = None
    rotation: Rotation | None = None
    kv_cache: AttentionCache | None = None
    replay: RoutingReplay | None = None
    attention_watch: Callable[[Float[Tensor, "B T S"]], None] | None = None

    @classmethod
    def of(cls, batch: TokenBatch) -> "ForwardContext":
        """Return what a batch says about its tokens."""
        return cls(documents=batch.documents, positions=batch.positions)

    def but(self, **changes: object) -> "ForwardContext":
        """Return a copy with some attributes changed."""
        return replace(self, **changes)  # type: ignore[arg-type]


EMPTY = ForwardContext()
"""Rows of one text each, all of one length, read from their beginning."""
