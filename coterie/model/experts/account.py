"""The account of a routed layer: who got how many tokens, and the router's own losses.

Padding and ignored tokens are neither counted nor averaged over.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from coterie.model.experts.balance import BalancePart
from coterie.model.experts.dispatch import count_pairs
from coterie.model.experts.router import Router, Routing


@dataclass(frozen=True)
class LayerRouting:
    """What one routed layer did in one forward pass.

    Attributes:
        layer: its index in the decoder.
        load: valid (token, expert) pairs of each expert, detached.
        dropped: valid pairs that found no room.
        auxiliary: the balance's loss, coefficient included, differentiable; zero where it has none.
        z: the z-loss, likewise.
        probabilities: the router's share of each expert for each token, detached.
        valid: which tokens count; None: all.
    """

    layer: int
    load: Int[Tensor, " E"]
    dropped: Int[Tensor, ""]
    auxiliary: Float[Tensor, ""]
    z: Float[Tensor, ""]
    probabilities: Float[Tensor, "N E"] = field(repr=False)
    valid: Bool[Tensor, " N"] | None = field(default=None, repr=False)

    @property
    def entropy(self) -> Float[Tensor, ""]:
        """Mean entropy of the router's shares, in nats: 0 when certain, log E when undecided."""
        return mean_over(torch.special.entr(self.probabilities).sum(-1), self.valid)


def keep_account(
    layer: int,
    routing: Routing,
    router: Router,
    balance: BalancePart,
    z_loss: float,
    valid: Bool[Tensor, " N"] | None,
    counts: Int[Tensor, " E"],
) -> LayerRouting:
    """Return what a layer did.

    Args:
        layer: its index.
        routing: the router's decisions.
        router: who took them.
        balance: the layer's balance.
        z_loss: coefficient of the z-loss; Zoph et al. 2022, arXiv:2202.08906, equation 5.
        valid: which tokens count; None: all.
        counts: pairs of each expert, valid or not.
    """
    load = counts if valid is None else count_pairs(routing.indices, counts.shape[0], valid)
    probabilities = router.scorer.probabilities(routing.scores)
    zero = probabilities.new_zeros(())
    return LayerRouting(
        layer=layer,
        load=load,
        dropped=load.new_zeros(()),
        auxiliary=balance.loss(mean_over(probabilities, valid), load)
        if balance.uses_loss
        else zero,
        z=z_loss * mean_over(routing.logits.logsumexp(-1).square(), valid) if z_loss else zero,
        probabilities=probabilities.detach(),
        valid=valid,
    )


def mean_over(x: Float[Tensor, "N ..."], valid: Bool[Tensor, " N"] | None) -> Float[Tensor, ...]:
    """Return the mean over valid tokens; zero where there is none."""
    if valid is None:
        return x.mean(0)
    weights = valid.to(x.dtype) / valid.sum().clamp(min=1)
    return torch.tensordot(weights, x, dims=1)
