"""What is minimised: cross-entropy per valid token of the whole batch, and the routers' own terms.

The whole accumulated batch has N valid tokens. Every micro-batch contributes its summed
cross-entropy over N, so that the sum over micro-batches is the mean over the batch, however it was
cut and wherever padding fell. The routers' terms are averaged over layers and weighted by each
micro-batch's share of N: those linear in the tokens (z) come out the same for any cut.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coterie.data import IGNORE
from coterie.model import LayerRouting, Output


def count_valid(targets: Int[Tensor, "B T"]) -> Int[Tensor, ""]:
    """Return the number of targets that count, without waiting for the device."""
    return (targets != IGNORE).sum()


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


def objective(output: Output, batch_tokens: Int[Tensor, ""], account: Account) -> Float[Tensor, ""]:
    """Return what one micro-batch adds to the batch's loss, and enter it in the account.

    Args:
        output: the decoder's output on the micro-batch, targets given.
        batch_tokens: valid tokens of the whole accumulated batch.
        account: where the parts are summed up.
    """
    assert output.loss_sum is not None
    assert output.valid_tokens is not None
    loss = output.loss_sum / batch_tokens
    terms = routing_terms(output.routing)
    share = output.valid_tokens / batch_tokens
    terms = {name: term * share for name, term in terms.items()}
    account.add(loss, terms, output.routing)
    for term in terms.values():
        if term.requires_grad:
            loss = loss + term
    return loss


def routing_terms(routing: tuple[LayerRouting, ...]) -> dict[str, Tensor]:
    """Return the routers' terms, each the mean over routed layers.

    A mean over layers keeps a coefficient's meaning when layers are added: with uniform routing the
    balance term is the coefficient itself.
    """
    if not routing:
        return {}
    return {
        "balance": torch.stack([layer.auxiliary for layer in routing]).mean(),
        "z": torch.stack([layer.z for layer in routing]).mean(),
    }
