"""What the decoder returns: logits or losses, the routers' accounts, and what its heads give."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from coterie.model.experts import RouterStats


@dataclass(frozen=True)
class Output:
    """What a forward pass returns.

    Attributes:
        logits: [B, T, V]; None where targets were given.
        losses: [B, T], the cross-entropy of each target, in nats and at least float32, 0 where it
            is `IGNORE`; None without targets.
        router_stats: of each routed layer, from the bottom up.
        mtp: [B, T − k] for each depth k of multi-token prediction that the text is long enough
            for: the losses of the targets k tokens further on. Only in training, with targets.
        values: [B, T], a number for each position that logits or the loss are of; None without a
            value head.
        embedding: [B, E], each text's vector; None without a pooled head, and where a row is not
            one text read as a whole (with a cache or documents).
        hidden_states: [B, T, D], normalised as the head reads them, of each position that logits or
            the loss are of; None where they were not asked for.
    """

    logits: Float[Tensor, "B T V"] | None
    losses: Float[Tensor, "B T"] | None
    router_stats: tuple[RouterStats, ...]
    mtp: tuple[Float[Tensor, "B _"], ...] = ()
    values: Float[Tensor, "B T"] | None = None
    embedding: Float[Tensor, "B E"] | None = None
    hidden_states: Float[Tensor, "B T D"] | None = None
