"""What the decoder answers: logits or losses, the routers' accounts, and what its heads say."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from coterie.model.experts import LayerRouting
from coterie.model.heads import AheadLoss


@dataclass(frozen=True)
class Output:
    """What a forward pass answers.

    Attributes:
        logits: [B, T, V]; None where targets were given.
        loss_sum: cross-entropy summed over valid targets, in nats and at least float32.
        valid_tokens: how many targets that are.
        routing: the account of each routed layer, from the bottom up.
        ahead: the losses of multi-token prediction by depth; only while training, with targets.
        values: [B, T], a number for each position that logits or the loss are of; None without a
            value head.
        embedding: [B, E], each text's vector; None without a pooled head, and where a row is not
            one text read as a whole (with a cache or documents).
    """

    logits: Float[Tensor, "B T V"] | None
    loss_sum: Float[Tensor, ""] | None
    valid_tokens: Int[Tensor, ""] | None
    routing: tuple[LayerRouting, ...]
    ahead: tuple[AheadLoss, ...] = ()
    values: Float[Tensor, "B T"] | None = None
    embedding: Float[Tensor, "B E"] | None = None
