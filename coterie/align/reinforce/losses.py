"""The losses of reinforcement, token by token; whoever calls weighs and adds them up.

`new` are log-probabilities of the policy as it moves, `old` those of the policy that wrote the
texts, `reference` those of the frozen one, all of the tokens that were written.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Estimator = Literal["k1", "k2", "k3"]


class Clipped(NamedTuple):
    """The clipped objective of each token.

    Attributes:
        loss: to be minimised.
        ratio: new over old probability.
        low: 1 where the ratio lies below the range and that takes the gradient away.
        high: 1 where it lies above and that does.
    """

    loss: Tensor
    ratio: Tensor
    low: Tensor
    high: Tensor


def clipped_objective(
    new: Float[Tensor, "*N"],
    old: Float[Tensor, "*N"],
    advantages: Float[Tensor, "*N"],
    low: float,
    high: float,
) -> Clipped:
    """Return −min(r·A, clip(r, 1 − low, 1 + high)·A) with r = exp(new − old).

    Schulman et al. 2017, arXiv:1707.06347, equation 7; unequal bounds as in DAPO (Yu et al. 2025,
    arXiv:2503.14476). Where new = old its gradient is that of −A·ln π, the policy gradient.
    """
    ratio = (new - old).exp()
    inside = ratio.clamp(1 - low, 1 + high)
    loss = -torch.minimum(ratio * advantages, inside * advantages)
    detached = ratio.detach()
    return Clipped(
        loss,
        detached,
        ((detached < 1 - low) & (advantages < 0)).to(loss),
        ((detached > 1 + high) & (advantages > 0)).to(loss),
    )


def value_loss(
    values: Float[Tensor, "*N"],
    old: Float[Tensor, "*N"],
    returns: Float[Tensor, "*N"],
    clip: float | None,
) -> Float[Tensor, "*N"]:
    """Return ½·(V − R)², or the larger of that and the same of V held within `clip` of its old.

    Schulman et al.'s own implementation of PPO; see Huang et al. 2024, arXiv:2403.17031.
    """
    plain = (values - returns).square()
    if clip is None:
        return plain / 2
    near = old + (values - old).clamp(-clip, clip)
    return torch.maximum(plain, (near - returns).square()) / 2


def kl_estimate(
    new: Float[Tensor, "*N"], reference: Float[Tensor, "*N"], estimator: Estimator
) -> Float[Tensor, "*N"]:
    """Return an estimate of KL(new ‖ reference) from one token drawn from the new policy each.

    Schulman 2020, “Approximating KL divergence”: k1 = ln(new/reference) is unbiased and may be
    negative; k2 = k1²/2 is biased and varies little; k3 = e^(−k1) − 1 + k1 is unbiased and never
    negative.
    """
    difference = new - reference
    match estimator:
        case "k1":
            return difference
        case "k2":
            return difference.square() / 2
        case "k3":
            return torch.expm1(-difference) + difference


class AdaptiveKL:
    """A coefficient of the KL that moves so that the KL stays near a target.

    Ziegler et al. 2019, arXiv:1909.08593, section 2.2: β ← β·(1 + 0.2-clipped(KL/target − 1)·rate).
    """

    def __init__(self, coefficient: float, target: float | None, rate: float) -> None:
        self.coefficient, self._target, self._rate = coefficient, target, rate

    def observe(self, kl: float) -> None:
        """Take note of the KL of a rollout; a fixed coefficient stays."""
        if self._target is not None:
            error = min(max(kl / self._target - 1, -0.2), 0.2)
            self.coefficient *= 1 + self._rate * error


def entropy(logits: Float[Tensor, "*N V"]) -> Float[Tensor, "*N"]:
    """Return the entropy of each position's distribution, in nats."""
    logs = logits.log_softmax(-1)
    return -(logs.exp() * logs).sum(-1)
