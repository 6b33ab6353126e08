"""What a step of reinforcement minimises: clipped objective, KL, entropy, value, routers' terms.

Log-probabilities are those of the tokens at the temperature that they were drawn with. The decoder
is in evaluation mode, so that it is the function that wrote the texts: without dropout, with its
counted n-grams, no expert full.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from coterie.align.reinforce.batch import RolloutBatch
from coterie.align.reinforce.losses import (
    Estimator,
    clipped_objective,
    entropy,
    kl_estimate,
    value_loss,
)
from coterie.align.reinforce.routes import agreement, replays
from coterie.batch import IGNORE, TokenBatch
from coterie.model import Decoder, Output
from coterie.model.context import ForwardContext
from coterie.model.replay import RoutingReplay
from coterie.train.objective import Models, Term, Terms
from coterie.train.objective.routers import router_terms


@dataclass(frozen=True)
class PolicyModels(Models):
    """The policy, and its module, of which the layers are asked.

    Attributes:
        module: the decoder itself, where `decoder` may be a compiled form of it.
    """

    module: Decoder


@dataclass(frozen=True)
class Weights:
    """What the terms count.

    Attributes:
        kl: of the KL to the reference; a function, for it may move.
        estimator: of that KL.
        entropy: of the entropy, which is to be large.
        value: of the value loss; 0: there is none.
        low: how far below 1 the ratio may lie.
        high: how far above.
        value_clip: how far a value may leave its old one; None: any.
        temperature: that tokens were drawn with.
        replay: whether the routers' choices are repeated.
        sequence: whether a text has one ratio, the geometric mean of its tokens'.
        imitates: whether the texts are learnt by cross-entropy, as data are.
    """

    kl: Callable[[], float]
    estimator: Estimator
    entropy: float
    value: float
    low: float
    high: float
    value_clip: float | None
    temperature: float
    replay: bool
    sequence: bool = False
    imitates: bool = False


@dataclass(frozen=True)
class Read:
    """What a pass over a batch gave for its targets, zeros elsewhere."""

    logprobs: Float[Tensor, "B T"]
    entropies: Float[Tensor, "B T"]
    output: Output
    routes: list[RoutingReplay] | None


def read_policy(
    forward: Callable[..., Output],
    module: Decoder,
    batch: RolloutBatch,
    temperature: float = 1.0,
    *,
    replay: bool = True,
) -> Read:
    """Return log-probabilities and entropies of a batch's targets, differentiable.

    Args:
        replay: whether routers repeat the recorded choices.
    """
    routes = None
    if batch.routes is not None:
        routes = replays(module, batch.routes, repeats=replay)
    output = forward(batch.tokens, None, ForwardContext.of(batch).but(
        valid=batch.valid, routes=routes))  # fmt: skip
    assert output.logits is not None
    logits = output.logits.float() / temperature
    targets = batch.targets.masked_fill(batch.targets == IGNORE, 0)
    logs = logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    masked = torch.where(batch.valid, logs, 0.0)
    return Read(masked, torch.where(batch.valid, entropy(logits), 0.0), output, routes)


class ReinforceObjective:
    """Σ w·loss / Σ share, β·KL, −c·entropy and the value loss per token; and what is watched."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def counts(self, batch: TokenBatch) -> Mapping[str, Tensor]:
        """Return the divisor of the policy's loss, and the number of tokens written."""
        assert isinstance(batch, RolloutBatch)
        assert batch.share is not None
        return {"share": batch.share.sum(), "tokens": batch.valid.sum()}

    def __call__(self, models: Models, batch: TokenBatch) -> Terms:
        """Read the batch once."""
        assert isinstance(models, PolicyModels)
        assert isinstance(batch, RolloutBatch)
        assert batch.advantages is not None
        assert batch.weights is not None
        weights, valid = self._weights, batch.valid
        read = read_policy(models.decoder, models.module, batch, weights.temperature,
                           replay=weights.replay)  # fmt: skip
        new, output = read.logprobs, read.output
        old = new.detach() if batch.old is None else batch.old
        if weights.sequence:
            counts = valid.sum(1, keepdim=True).clamp(min=1)
            mean = ((new - old).sum(1, keepdim=True) / counts).expand_as(new)
            new, old = torch.where(valid, mean, 0.0), torch.zeros_like(mean)
        found = clipped_objective(new, old, batch.advantages, weights.low, weights.high)
        losses = -read.logprobs if weights.imitates else found.loss
        terms = [
            Term("loss", (losses * batch.weights).sum(), "share"),
            Term("entropy_bonus", read.entropies.sum(), "tokens", -weights.entropy),
        ]
        if batch.reference is not None:
            kl = kl_estimate(read.logprobs, batch.reference, weights.estimator)
            summed = torch.where(valid, kl, 0.0).sum()
            difference = (read.logprobs - batch.reference).detach()
            terms += [
                Term("kl_penalty", summed, "tokens", weights.kl()),
                Term("kl/k1", torch.where(valid, difference, 0.0).sum(), "tokens"),
            ]
        terms += self._values(batch, output)
        terms += router_terms(output.router_stats, lambda layer: "tokens")
        terms += self._watched(batch, read, found.ratio, found.low, found.high)
        return Terms(tuple(terms), output.router_stats)

    def _values(self, batch: RolloutBatch, output: Output) -> list[Term]:
        if batch.returns is None:
            return []
        assert output.values is not None
        assert batch.values is not None
        losses = value_loss(output.values, batch.values, batch.returns, self._weights.value_clip)
        errors = (output.values.detach() - batch.returns).square()
        valid = batch.valid
        return [
            Term("value", torch.where(valid, losses, 0.0).sum(), "tokens", self._weights.value),
            Term("val/error", torch.where(valid, errors, 0.0).sum(), "tokens"),
        ]

    def _watched(
        self, batch: RolloutBatch, read: Read, ratio: Tensor, low: Tensor, high: Tensor
    ) -> list[Term]:
        """Return what is reported and not minimised, each a mean over the tokens written."""
        valid = batch.valid
        found = {
            "policy/entropy": read.entropies,
            "clip_ratio/low": low,
            "clip_ratio/high": high,
            "importance_ratio/mean": ratio,
            "importance_ratio/squares": (ratio - 1).square(),
        }
        if batch.old is not None:
            difference = read.logprobs - batch.old
            found["policy/approx_kl"] = difference.square() / 2
        if batch.written is not None:
            found["sampling/logp_difference"] = (read.logprobs - batch.written).abs()
        if batch.routes is not None and read.routes is not None:
            chosen = [
                each.own if each.own is not None else each.indices
                for each in (read.routes[layer] for layer in _layers(read.routes))
            ]
            known = [each for each in chosen if each is not None]
            found["routing/agreement"] = agreement(batch.routes, known)
        return [
            Term(name, torch.where(valid, each.detach(), 0.0).sum(), "tokens")
            for name, each in found.items()
        ]


def _layers(routes: list[RoutingReplay]) -> list[int]:
    return [layer for layer, each in enumerate(routes) if each.indices is not None]
