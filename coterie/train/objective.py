"""What is minimised: cross-entropy per valid token of the whole batch, and the routers' own terms.

The whole accumulated batch has N valid tokens. Every micro-batch contributes its summed
cross-entropy over N, so that the sum over micro-batches is the mean over the batch, however it was
cut and wherever padding fell. The routers' terms are averaged over layers and weighted by each
micro-batch's share of N: those linear in the tokens (z) come out the same for any cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coterie.batch import IGNORE
from coterie.model import AheadLoss, LayerRouting, Output, ahead_targets


def count_valid(targets: Int[Tensor, "B T"]) -> Int[Tensor, ""]:
    """Return the number of targets that count, without waiting for the device."""
    return (targets != IGNORE).sum()


def count_valid_ahead(targets: Int[Tensor, "B T"], depths: int) -> list[Int[Tensor, ""]]:
    """Return the number of targets that count at each depth that the text is long enough for."""
    reached = range(1, min(depths, targets.shape[1] - 1) + 1)
    return [count_valid(ahead_targets(targets, depth)) for depth in reached]


@dataclass
class Account:
    """What a step's micro-batches add up to, kept outside autograd.

    Attributes:
        loss: mean nats per valid token, cross-entropy alone.
        auxiliary: the routers' terms by name, mean over layers.
        loads: tokens per expert of each routed layer, [E].
        dropped: tokens that found no expert in each routed layer.
    """

    loss: Tensor | float = 0.0
    auxiliary: dict[str, Tensor] = field(default_factory=dict)
    loads: dict[int, Tensor] = field(default_factory=dict)
    dropped: dict[int, Tensor | int] = field(default_factory=dict)

    def add(
        self, loss: Tensor, terms: dict[str, Tensor], routing: tuple[LayerRouting, ...]
    ) -> None:
        """Add one micro-batch."""
        self.loss = self.loss + loss.detach()
        for name, term in terms.items():
            value = term.detach()
            self.auxiliary[name] = self.auxiliary[name] + value if name in self.auxiliary else value
        for layer in routing:
            before = self.loads.get(layer.layer)
            self.loads[layer.layer] = layer.load if before is None else before + layer.load
            self.dropped[layer.layer] = self.dropped.get(layer.layer, 0) + layer.dropped


def objective(
    output: Output,
    batch_tokens: Int[Tensor, ""],
    account: Account,
    ahead_tokens: Sequence[Int[Tensor, ""]] = (),
) -> Float[Tensor, ""]:
    """Return what one micro-batch adds to the batch's loss, and enter it in the account.

    Args:
        output: the decoder's output on the micro-batch, targets given.
        batch_tokens: valid tokens of the whole accumulated batch.
        account: where the parts are summed up.
        ahead_tokens: the same as `batch_tokens` for each depth of multi-token prediction.
    """
    assert output.loss_sum is not None
    assert output.valid_tokens is not None
    batch_tokens = batch_tokens.clamp(min=1)  # a batch without any target costs nothing
    loss = output.loss_sum / batch_tokens
    further = list(zip(output.ahead, ahead_tokens, strict=True))
    shares = {part.layer: part.valid_tokens / tokens.clamp(min=1) for part, tokens in further}
    terms = routing_terms(output.routing, output.valid_tokens / batch_tokens, shares)
    if further:
        terms["ahead"] = ahead_term(further)
    account.add(loss, terms, output.routing)
    for term in terms.values():
        if term.requires_grad:
            loss = loss + term
    return loss


def ahead_term(further: Sequence[tuple[AheadLoss, Int[Tensor, ""]]]) -> Float[Tensor, ""]:
    """Return what the depths of multi-token prediction add to the loss: weighted means.

    Args:
        further: the loss of each depth on the micro-batch, and the valid targets of that depth in
            the whole accumulated batch.
    """
    terms = [part.weight * part.loss_sum / tokens.clamp(min=1) for part, tokens in further]
    return torch.stack(terms).sum()


def routing_terms(
    routing: tuple[LayerRouting, ...], share: Tensor, shares: Mapping[int, Tensor]
) -> dict[str, Tensor]:
    """Return the routers' terms, each the mean over routed layers.

    A mean over layers keeps a coefficient's meaning when layers are added: with uniform routing the
    balance term is the coefficient itself.

    Args:
        routing: the account of each routed layer.
        share: of the micro-batch in the whole batch's valid tokens.
        shares: the same of layers that count other tokens, by their index.
    """
    if not routing:
        return {}
    by_layer = torch.stack([shares.get(layer.layer, share) for layer in routing])
    return {
        "balance": (torch.stack([layer.auxiliary for layer in routing]) * by_layer).mean(),
        "z": (torch.stack([layer.z for layer in routing]) * by_layer).mean(),
        "entropy": (torch.stack([layer.entropy_term for layer in routing]) * by_layer).mean(),
    }
