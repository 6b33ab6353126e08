"""Router statistics of a layer: the load of each expert, and the router's own losses.

Padding and ignored tokens are neither counted nor averaged over.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from coterie.model.experts.balance import BalanceInputs, BalancePart
from coterie.model.experts.dispatch import count_pairs
from coterie.model.experts.means import mean_over
from coterie.model.experts.router import Router, Routing

_TINY = 1e-30  # the logarithm's slope stays finite where a probability has underflown


@dataclass(frozen=True)
class RouterStats:
    """What one routed layer did in one forward pass.

    Attributes:
        load: valid (token, expert) pairs selected for each expert, before any drop, detached.
        dropped: how many of those exceeded an expert's capacity.
        tokens: how many valid tokens there were.
        auxiliary: the load balancing loss, coefficient included, differentiable; zero if none.
        z: the router z-loss, likewise.
        entropy_term: the selection's entropy regulariser, likewise.
        probabilities: the router's share of each expert for each token, detached.
        indices: the experts selected for each token, before any drop; E where there is none.
        valid: which tokens count; None: all.
        layer: its index in the decoder, which fills it in: layers that know their number would be
            compiled one by one.
    """

    load: Int[Tensor, " E"]
    dropped: Int[Tensor, ""]
    tokens: Int[Tensor, ""]
    auxiliary: Float[Tensor, ""]
    z: Float[Tensor, ""]
    entropy_term: Float[Tensor, ""]
    probabilities: Float[Tensor, "N E"] = field(repr=False)
    indices: Int[Tensor, "N k"] = field(repr=False)
    valid: Bool[Tensor, " N"] | None = field(default=None, repr=False)
    layer: int = -1

    @property
    def entropy(self) -> Float[Tensor, ""]:
        """Mean entropy of the router's shares, in nats: 0 when certain, log E when undecided."""
        return mean_entropy(self.probabilities, self.valid)

    @property
    def experts_per_token(self) -> Float[Tensor, ""]:
        """Experts that a valid token selected, on average."""
        return self.load.sum() / self.tokens.clamp(min=1)


def mean_entropy(
    probabilities: Float[Tensor, "N E"], valid: Bool[Tensor, " N"] | None
) -> Float[Tensor, ""]:
    """Return the mean entropy of valid tokens' shares, in nats."""
    return mean_over(torch.special.entr(probabilities.clamp(min=_TINY)).sum(-1), valid)


def measure_routing(
    router: Router,
    balance: BalancePart,
    z_loss: float,
    routing: Routing,
    shape: tuple[int, int],
    valid: Bool[Tensor, "B T"] | None,
    balance_load: Int[Tensor, " E"] | None,
    dropped: Int[Tensor, ""] | None,
) -> tuple[RouterStats, Int[Tensor, " E"]]:
    """Return what a layer did, and the load that its load balancing loss went by.

    Args:
        z_loss: the router z-loss's coefficient; 0: there is none.
        routing: the router's decisions on N = B·T tokens.
        shape: B and T.
        valid: which tokens count; None: all.
        balance_load: the load that the loss went by in an earlier pass over the same tokens.
        dropped: valid pairs that exceeded the capacity; None: none.
    """
    counted = None if valid is None else valid.flatten()
    load = count_pairs(routing.indices, routing.logits.shape[-1], counted)
    probabilities = router.scorer.probabilities(routing.scores)
    zero = probabilities.new_zeros(())
    if balance_load is None:
        balance_load = balance.observe(load) if balance.training else load
    auxiliary = zero
    if balance.uses_loss:
        shares, chosen = probabilities.unflatten(0, shape), routing.indices.unflatten(0, shape)
        auxiliary = balance.loss(BalanceInputs(shares, chosen, valid, balance_load))
    # Zoph et al. 2022, arXiv:2202.08906, equation 5
    squares = routing.logits.logsumexp(-1).square() if z_loss else None
    entropy = router.selector.entropy
    return RouterStats(
        load=load,
        dropped=load.new_zeros(()) if dropped is None else dropped,
        tokens=load.new_full((), shape[0] * shape[1]) if counted is None else counted.sum(),
        auxiliary=auxiliary,
        z=zero if squares is None else z_loss * mean_over(squares, counted),
        entropy_term=entropy * mean_entropy(probabilities, counted) if entropy else zero,
        probabilities=probabilities.detach(),
        indices=routing.indices,
        valid=counted,
    ), balance_load
