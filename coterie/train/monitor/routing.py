"""Looks into routers and stream at one step in many: what each expert is used for, as it changes.

A look reads the beginning of the step's batch once more, with the weights that the step left and
without dropout or noise. So training is the same, to the bit, however its own passes are computed
(compiled, recorded, in pieces, recomputed); a look costs one pass forward over 1,024 tokens at
most, and nothing where none is asked for. Everything is reduced on the device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from coterie.batch import TokenBatch
from coterie.generate.modes import evaluation
from coterie.model import Decoder
from coterie.model.context import ForwardContext
from coterie.model.observe import LayerRouting, LayerSeen, Watcher
from coterie.tokenizer.interface import Tokenizer
from coterie.train.events import LEAST_SEEN, ExpertWatched, LayerWatched, RoutingWatched
from coterie.train.monitor.publish import Publisher
from coterie.train.precision import Precision
from coterie.train.randomness import set_aside

MOST_TOKENS = 1024
_FAVOURITES, _PARTNERS = 5, 3
_BUCKETS = 8


class RoutingWatch:
    """Publishes a look after every so many steps.

    Args:
        every: steps between looks; 0: there are none.
    """

    def __init__(
        self,
        every: int,
        decoder: Decoder,
        precision: Precision,
        tokenizer: Tokenizer,
        publish: Publisher,
    ) -> None:
        self._every, self.decoder, self._precision = every, decoder, precision
        self._tokenizer, self._publish = tokenizer, publish
        self._named: set[int] = set()

    def step_done(self, step: int, batch: TokenBatch) -> None:
        """Look at the batch of step number `step` (counted from 1), if that is due."""
        if self._every and step % self._every == 0:
            self._publish(self.look(step, batch))

    def look(self, step: int, batch: TokenBatch) -> RoutingWatched:
        """Return what layers do to the batch's first rows, ignored tokens left out."""
        length = min(batch.tokens.shape[1], MOST_TOKENS)
        read = batch.part(max(MOST_TOKENS // length, 1), length)
        watcher = Watcher(self.decoder, attention=False, lens=False)
        with set_aside(), evaluation(self.decoder), self._precision.autocast():
            with watcher:
                self.decoder(read.tokens, None, ForwardContext.of(read), last=1)  # no losses
            labels = _Labels.of(read, step)
            layers = [_reduced(each, labels) for each in watcher.take(read.tokens.numel())]
        named = {token for layer in layers for expert in layer.experts
                 for token, _, _ in expert.favourites} - self._named  # fmt: skip
        self._named |= named
        words = {token: self._tokenizer.decode([token]) for token in sorted(named)}
        return RoutingWatched(
            step=step, tokens=len(labels.tokens), layers=tuple(layers), words=words
        )


@dataclass(frozen=True)
class _Labels:
    """What is known of the N tokens of a look that count.

    Attributes:
        valid: which of all tokens they are.
        tokens: of each, which of the U kinds it is.
        kinds: the number of each kind of token, [U]; seen: how often it was read.
        places: of each token in its window, from 0 to 1.
        order: the tokens in an order that chance alone decided.
    """

    valid: Bool[Tensor, " M"]
    tokens: Int[Tensor, " N"]
    kinds: Int[Tensor, " U"]
    seen: Int[Tensor, " U"]
    places: Float[Tensor, " N"]
    order: Int[Tensor, " N"]

    @classmethod
    def of(cls, batch: TokenBatch, seed: int) -> _Labels:
        rows, length = batch.tokens.shape
        valid = batch.valid.flatten()
        kinds, tokens, seen = torch.unique(
            batch.tokens.flatten()[valid], return_inverse=True, return_counts=True
        )
        places = torch.linspace(0, 1, length, device=valid.device).repeat(rows)[valid]
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(tokens), generator=generator).to(valid.device)
        return cls(valid, tokens, kinds, seen, places, order)


def _reduced(seen: LayerSeen, labels: _Labels) -> LayerWatched:
    norms: dict[str, Any] = {
        name: _short(getattr(seen, name)[labels.valid].mean())
        for name in ("residual", "attention", "feedforward")
    }
    if seen.routing is None or not len(labels.tokens):
        return LayerWatched(layer=seen.layer, **norms)
    routing = seen.routing
    shares = routing.shares[labels.valid].float()
    margin = routing.margin[labels.valid].float().sort().values
    weights, members = _spread(routing, labels.valid)
    eighths = (labels.places * _BUCKETS).long().clamp(max=_BUCKETS - 1)
    numbers: dict[str, Tensor] = {
        "entropy": torch.special.entr(shares).sum(1).mean(),
        "margin": margin[(len(margin) - 1) // 2],
        "margin_low": margin[(len(margin) - 1) // 10],
    }
    for name, label, count in (
        ("token", labels.tokens, len(labels.kinds)), ("position", eighths, _BUCKETS),
    ):  # fmt: skip
        numbers[name] = information(label, weights, count)
        numbers[f"{name}_null"] = information(label[labels.order], weights, count)
    told: dict[str, Any] = {name: _short(value) for name, value in numbers.items()}
    return LayerWatched(
        layer=seen.layer, **norms, load=tuple(members.sum(0).long().tolist()),
        experts=_experts(weights, members, labels),
        **told,
    )  # fmt: skip


def _spread(
    routing: LayerRouting, valid: Bool[Tensor, " M"]
) -> tuple[Float[Tensor, "N E"], Float[Tensor, "N E"]]:
    """Return each token's weight of every expert, the sum of a token being 1, and where it went."""
    indices, gates = routing.indices[valid], routing.gates[valid].float()
    blank = gates.new_zeros(len(indices), routing.shares.shape[1] + 1)
    weights = blank.scatter_add(1, indices, gates)[:, :-1]
    members = blank.scatter(1, indices, 1.0)[:, :-1]
    return weights / weights.sum(1, keepdim=True).clamp(min=1e-30), members


def information(
    label: Int[Tensor, " N"], weights: Float[Tensor, "N E"], count: int
) -> Float[Tensor, ""]:
    """Return the mutual information of labels below `count` and experts, by weight, in nats.

    Σ p(x, e) log (p(x, e) / p(x) p(e)), as `coterie.evaluate.specialisation` has it.
    """
    joint = weights.new_zeros(count, weights.shape[1]).index_add_(0, label, weights)
    joint = joint / joint.sum().clamp(min=1e-30)
    apart = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    return torch.special.xlogy(joint, joint / apart.clamp(min=1e-30)).sum()


def _experts(
    weights: Float[Tensor, "N E"], members: Float[Tensor, "N E"], labels: _Labels
) -> tuple[ExpertWatched, ...]:
    count, mass = weights.shape[1], weights.sum(0)
    drawn = members.sum(0)
    table = weights.new_zeros(len(labels.kinds), count).index_add_(0, labels.tokens, weights)
    share = (mass / len(weights)).clamp(min=1e-30)
    lift = table / labels.seen[:, None] / share
    lift[labels.seen < LEAST_SEEN] = 0
    liked = lift.topk(min(_FAVOURITES, len(lift)), dim=0)
    together = members.T @ members
    together = together / (drawn[:, None] * drawn / len(members)).clamp(min=1e-30)
    partners = together.fill_diagonal_(0).topk(min(_PARTNERS, count), dim=1)
    read: list[Any] = [each.tolist() for each in (
        mass * count / mass.sum().clamp(min=1e-30),
        (weights * labels.places[:, None]).sum(0) / mass.clamp(min=1e-30),
        labels.kinds[liked.indices.T], labels.seen[liked.indices.T], liked.values.T,
        partners.indices, partners.values,
    )]  # fmt: skip
    return tuple(
        ExpertWatched(
            weight=_short(weight), position=_short(position),
            favourites=tuple((token, times, _short(lift)) for token, times, lift
                             in zip(*favourites, strict=True) if lift > 1),
            partners=tuple((other, _short(lift)) for other, lift
                           in zip(*company, strict=True) if lift > 0),
        )
        for weight, position, favourites, company in zip(
            read[0], read[1], zip(*read[2:5], strict=True), zip(*read[5:], strict=True), strict=True
        )
    )  # fmt: skip


def _short(value: Tensor | float) -> float:
    """Return a number of four digits, which take less room in the record."""
    value = float(value)
    return float(f"{value:.4g}") if math.isfinite(value) else value
