"""What each layer's experts are used for: information, company, certainty, and what they are worth.

The unit is (layer, expert). A token counts by its weights, divided by their sum, so that all tokens
count alike. How much the expert of a token tells of what the token is, where it stands and of which
domain it is, is mutual information in nats, Σ p(x, e) log (p(x, e) / p(x) p(e)): zero where they
are independent, at most the entropy of the experts. Estimated from few tokens it is never zero, so
beside each stands what labels dealt at random give (the permutation null), and how often they give
as much. Domains, and other labels of whole stretches such as languages and speakers, are dealt to
whole windows or stretches, for their tokens are no independent draws; and told once more for tokens
of equal kind (I(e; d | token) = I(e; d, token) − I(e; token)), for an expert of one word looks like
an expert of the domain that uses it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch

from coterie.evaluate.routing import RoutingHealth
from coterie.generate.modes import evaluation
from coterie.model import Decoder, routed_layers
from coterie.model.observe import LayerRouting, Steering, routing_watched, steered

PERMUTATIONS = 99
_BUCKETS = 8
_ROWS = 16
_UNTOUCHED = Steering()

Progress = Callable[[int], None]
Texts = Mapping[str, Sequence[Sequence[int]]]
"""Texts as tokens, by domain."""
Labels = Mapping[str, Mapping[str, Sequence[np.ndarray]]]
"""Of each kind of label, that of each token of some texts, from 0; below 0: not known."""


@dataclass(frozen=True)
class Information:
    """What the expert of a token tells of a label.

    Attributes:
        nats: the mutual information as it was measured.
        null: its mean over labels dealt at random: what the number of tokens alone makes of it.
        p: share of deals (this one among them) that give as much; small: no accident.
    """

    nats: float
    null: float
    p: float


@dataclass(frozen=True)
class Told:
    """What experts tell of a label of whole stretches, and what beyond what the token tells."""

    plain: Information
    given_token: Information


@dataclass(frozen=True)
class LayerUse:
    """What one layer's E experts are used for.

    Attributes:
        health: how the tokens were spread.
        weight: the sum of each expert's weights over an even share; 1 is fair.
        expert_entropy: of the experts over all tokens, in nats, the most that they can tell.
        entropy: mean entropy of the router's shares of a token, over log E: 1 is undecided.
        margin: median distance of a selection from another one.
        token, position: what experts tell of them.
        told: what they tell of domains (“domain”) and of further labels, where there are several.
        domains: each expert's share of a domain's weight over its share of all, [E, D]; 1 is none.
        together: how often two experts were selected for one token over how often they would be
            if each were independent of the other, [E, E]; NaN where one never was.
        together_even: what it would be if all sets of experts were equally likely.
        masked: how much greater the mean loss of each domain is without the expert, in nats a
            token, [E, D]; None where it was not asked for.
    """

    health: RoutingHealth
    weight: np.ndarray
    expert_entropy: float
    entropy: float
    margin: float
    token: Information
    position: Information
    told: Mapping[str, Told]
    domains: np.ndarray
    together: np.ndarray
    together_even: float
    masked: np.ndarray | None


@dataclass(frozen=True)
class _Windows:
    """Rows of equal length, read together.

    Attributes:
        tokens: inputs and, one further, targets, [B, T + 1].
        domains: of each row.
        numbers: of each row among all.
        labels: of the inputs, by kind, [B · T].
    """

    tokens: torch.Tensor
    domains: list[int]
    numbers: list[int]
    labels: dict[str, np.ndarray]


_NO_LABELS: Labels = {}


def _windows(texts: Texts, context: int, labels: Labels = _NO_LABELS) -> list[_Windows]:
    """Cut texts into windows of at most `context` inputs, those of one length side by side."""
    alike: defaultdict[int, list[tuple[int, Sequence[int], list[np.ndarray]]]]
    alike = defaultdict(list)
    for domain, (name, rows) in enumerate(texts.items()):
        for number, row in enumerate(rows):
            for start in range(0, len(row) - 1, context):
                piece = row[start : start + context + 1]
                own = [each[name][number][start : start + len(piece) - 1]
                       for each in labels.values()]  # fmt: skip
                alike[len(piece)].append((domain, piece, own))
    found, number = [], 0
    for rows in alike.values():
        for at in range(0, len(rows), _ROWS):
            some = rows[at : at + _ROWS]
            numbers = list(range(number, number + len(some)))
            number += len(some)
            tokens = torch.tensor([list(piece) for _, piece, _ in some])
            own = {kind: np.concatenate([labels[place] for _, _, labels in some])
                   for place, kind in enumerate(labels)}  # fmt: skip
            found.append(_Windows(tokens, [domain for domain, _, _ in some], numbers, own))
    return found


def _losses(
    decoder: Decoder, windows: Sequence[_Windows], domains: int, steering: Steering = _UNTOUCHED
) -> np.ndarray:
    """Return the mean loss of each domain, in nats a token."""
    sums, counts = np.zeros(domains), np.zeros(domains)
    device = next(decoder.parameters()).device
    with steered(decoder, steering), evaluation(decoder):
        for each in windows:
            tokens = each.tokens.to(device)
            losses = decoder(tokens[:, :-1], tokens[:, 1:]).losses
            assert losses is not None
            for domain, row in zip(each.domains, losses.double().sum(1).tolist(), strict=True):
                sums[domain] += row
                counts[domain] += tokens.shape[1] - 1
    return sums / np.maximum(counts, 1)


def analyse_routing(
    decoder: Decoder,
    texts: Texts,
    *,
    labels: Labels = _NO_LABELS,
    masking: Texts | None = None,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    progress: Progress = lambda done: None,
) -> tuple[LayerUse, ...]:
    """Return what the experts of each routed layer are used for.

    Args:
        decoder: in any mode, which it keeps.
        texts: what is read, by domain, in windows of the model's context.
        labels: further labels of the tokens of `texts`, such as who speaks.
        masking: what is read again without each expert, by the same domains; None: nothing.
        permutations: deals of labels at random; the seed decides them.
        progress: told how many passes over `masking` were made, of one for each expert.
    """
    windows = _windows(texts, decoder.settings.context, labels)
    seen = _routed(decoder, windows, len(texts))
    known = _Labels.of(windows, len(texts))
    again = None if masking is None else _windows(masking, decoder.settings.context)
    plain = None if again is None else _losses(decoder, again, len(texts))
    found, done = [], 0
    for layer, calls in sorted(seen.items()):
        effects = None
        if again is not None and plain is not None:
            rows = []
            for expert in range(routed_layers(decoder)[layer].num_experts):
                without = _losses(decoder, again, len(texts), Steering({layer: (expert,)}))
                rows.append(without - plain)
                done += 1
                progress(done)
            effects = np.stack(rows)
        random = np.random.default_rng((seed, layer))
        found.append(_use_of(layer, calls, known, effects, permutations, random))
    return tuple(found)


def _routed(
    decoder: Decoder, windows: Sequence[_Windows], domains: int
) -> dict[int, list[LayerRouting]]:
    """Return what each layer's router decided, call by call."""
    seen: defaultdict[int, list[LayerRouting]] = defaultdict(list)
    look = nullcontext() if not windows else routing_watched(
        decoder, lambda layer, routing: seen[layer].append(routing)
    )  # fmt: skip
    with look:
        _losses(decoder, windows, domains)
    return dict(seen)


def selections(decoder: Decoder, texts: Texts) -> dict[int, np.ndarray]:
    """Return the experts that each token of texts is sent to, by layer, [N, k]."""
    seen = _routed(decoder, _windows(texts, decoder.settings.context), len(texts))
    return {
        layer: torch.cat([call.indices for call in calls]).cpu().numpy()
        for layer, calls in sorted(seen.items())
    }


def saturation(earlier: np.ndarray, last: np.ndarray, experts: int) -> float:
    """Return the share of the experts that tokens are sent to in the end which they had before.

    |earlier ∩ last| / k, the mean over tokens: router saturation of OLMoE (Muennighoff et al. 2024,
    “OLMoE: open mixture-of-experts language models”, section 5.1). Two routers that know nothing of
    each other have k / E.

    Args:
        earlier, last: of the same tokens, [N, k], as `selections` returns them.
        experts: E, the number that stands where no expert was selected.
    """
    kept = (earlier[:, :, None] == last[:, None, :]).any(1)
    return float(kept[last < experts].mean())


@dataclass(frozen=True)
class _Labels:
    """What is known of each of N tokens, in the order in which they were read."""

    tokens: np.ndarray
    positions: np.ndarray
    windows: np.ndarray
    domain_of: np.ndarray  # of each window
    domains: int
    others: dict[str, np.ndarray]

    @classmethod
    def of(cls, windows: Sequence[_Windows], domains: int) -> "_Labels":
        tokens, positions, numbers, domain_of = [], [], [], []
        for each in windows:
            rows, length = each.tokens.shape[0], each.tokens.shape[1] - 1
            tokens.append(each.tokens[:, :-1].flatten().numpy())
            positions.append(np.tile(np.arange(length) * _BUCKETS // length, rows))
            numbers.append(np.repeat(each.numbers, length))
            domain_of += each.domains
        return cls(
            np.unique(np.concatenate(tokens), return_inverse=True)[1],
            np.concatenate(positions), np.concatenate(numbers), np.array(domain_of), domains,
            {kind: np.concatenate([each.labels[kind] for each in windows])
             for kind in (windows[0].labels if windows else ())},
        )  # fmt: skip

    def stretches(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Yield each label of whole stretches: its kind, that of each token, and the stretches."""
        yield "domain", self.domain_of[self.windows], self.windows
        for kind, label in self.others.items():
            begins = (np.diff(label) != 0) | (np.diff(self.windows) != 0)
            yield kind, label, np.concatenate([[0], np.cumsum(begins)])

    def told(
        self, weights: np.ndarray, permutations: int, random: np.random.Generator
    ) -> dict[str, Told]:
        """Return what weights [N, E] tell of each of them that has several values."""
        found = {}
        for kind, all_labels, all_stretches in self.stretches():
            known = all_labels >= 0
            label, own, tokens = all_labels[known], weights[known], self.tokens[known]
            if len(np.unique(label)) < 2:
                continue
            stretch = np.unique(all_stretches[known], return_inverse=True)[1]
            of = np.zeros(stretch.max() + 1, int)
            of[stretch] = label
            of_token, kinds = information(tokens, own), self.tokens.max() + 1

            def both(
                label: np.ndarray, own=own, tokens=tokens, kinds=kinds, of_token=of_token
            ) -> tuple[float, float]:
                given = information(label * kinds + tokens, own) - of_token
                return information(label, own), given

            dealt = [both(random.permutation(of)[stretch]) for _ in range(permutations)]
            found[kind] = Told(*(
                _against(measured, null)
                for measured, null in zip(both(label), zip(*dealt, strict=True), strict=True)
            ))  # fmt: skip
        return found


def _use_of(
    layer: int,
    calls: list[LayerRouting],
    labels: _Labels,
    effects: np.ndarray | None,
    permutations: int,
    random: np.random.Generator,
) -> LayerUse:
    experts = calls[0].shares.shape[1]
    shares, gates, indices, margin = (
        torch.cat([getattr(call, name) for call in calls]).cpu().numpy()
        for name in ("shares", "gates", "indices", "margin")
    )
    members = (indices[:, :, None] == np.arange(experts)).any(1)
    weights = _spread(indices, gates, experts)
    load, mass = members.sum(0), weights.sum(0)
    label = labels.domain_of[labels.windows]
    by_domain = _joint(label, weights, labels.domains)
    of_domain = by_domain / np.maximum(by_domain.sum(1, keepdims=True), 1e-30)
    share = mass / max(mass.sum(), 1e-30)
    logs = np.log(np.where(shares > 0, shares, 1.0))

    def told(name: np.ndarray) -> Information:
        null = [information(random.permutation(name), weights) for _ in range(permutations)]
        return _against(information(name, weights), null)

    chosen = indices.shape[1]
    expected = np.outer(load, load) / max(len(indices), 1)
    both = (members.T.astype(np.int64) @ members.astype(np.int64)).astype(np.float64)
    together = np.divide(both, expected, out=np.full(both.shape, np.nan), where=expected > 0)
    np.fill_diagonal(together, np.nan)
    return LayerUse(
        health=RoutingHealth(layer, tuple(load.tolist()), 0, len(indices)),
        weight=share * experts,
        expert_entropy=float(-(share * np.log(np.where(share > 0, share, 1.0))).sum()),
        entropy=float(-(shares * logs).sum(1).mean() / max(np.log(experts), 1e-30)),
        margin=float(np.median(margin)),
        token=told(labels.tokens),
        position=told(labels.positions),
        told=labels.told(weights, permutations, random),
        domains=np.divide(of_domain.T, share[:, None], out=np.ones((experts, labels.domains)),
                          where=share[:, None] > 0),
        together=together,
        together_even=(chosen - 1) * experts / (chosen * max(experts - 1, 1)),
        masked=effects,
    )  # fmt: skip


def _against(measured: float, null: Sequence[float]) -> Information:
    as_much = sum(each >= measured - 1e-12 for each in null)
    return Information(measured, float(np.mean(null)), (1 + as_much) / (1 + len(null)))


def _spread(indices: np.ndarray, gates: np.ndarray, experts: int) -> np.ndarray:
    """Return each token's weight of every expert, [N, E], the sum of a token being 1."""
    spread = np.zeros((len(indices), experts + 1))
    np.put_along_axis(spread, indices, gates, 1)
    total = spread[:, :experts].sum(1, keepdims=True)
    return spread[:, :experts] / np.where(total > 0, total, 1.0)


def _joint(label: np.ndarray, weights: np.ndarray, labels: int) -> np.ndarray:
    columns = [np.bincount(label, column, labels) for column in weights.T]
    return np.stack(columns, axis=1)


def information(label: np.ndarray, weights: np.ndarray) -> float:
    """Return the mutual information of labels and experts, in nats.

    Args:
        label: of each of N tokens, any integers from 0.
        weights: of each token over the experts, [N, E].
    """
    kinds, dense = np.unique(label, return_inverse=True)
    joint = _joint(dense, weights, len(kinds))
    joint = joint / max(joint.sum(), 1e-30)
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    some = joint > 0
    return float((joint[some] * np.log(joint[some] / independent[some])).sum())


def rows_of(use: LayerUse, domains: Sequence[str]) -> Iterator[dict[str, object]]:
    """Yield the figures of each expert of a layer."""
    for expert, load in enumerate(use.health.load):
        yield {
            "layer": use.health.layer, "expert": expert,
            "load": load / use.health.mean if use.health.mean else 0.0,
            "weight": float(use.weight[expert]),
            "domains": dict(zip(domains, use.domains[expert].tolist(), strict=True)),
            "masked": None if use.masked is None
            else dict(zip(domains, use.masked[expert].tolist(), strict=True)),
        }  # fmt: skip
