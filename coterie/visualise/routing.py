"""What a trace says of routing, in numbers: every panel shows what one function here returns.

The unit is (layer, expert): nothing is pooled over layers, whose experts have nothing in common but
their numbers. A token counts for an expert by its weight there, not by membership alone; where both
are told, each has its name. Even use is always 1.0 (or the baseline that a function names).
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from coterie.foundation.traces import NO_EXPERT, Trace
from coterie.train.events import LEAST_SEEN

DEAD, HOT = 0.01, 2.0
"""Loads, relative to an even one, below and from which an expert is flagged."""
PHASES = {"prompt": False, "generated": True}


@dataclass(frozen=True)
class Load:
    """How the tokens of a text were spread over one layer's experts; each figure is 1.0 when even.

    Attributes:
        tokens: that were routed.
        share: selections of each expert, over an even share: count · E / Σ count.
        weight: the sum of its weights, over an even share: Σ w · E / ΣΣ w.
    """

    layer: int
    tokens: int
    share: np.ndarray
    weight: np.ndarray

    @property
    def dead(self) -> list[int]:
        """Experts with less than a hundredth of an even load."""
        return np.flatnonzero(self.share < DEAD).tolist() if self.tokens else []

    @property
    def hot(self) -> list[int]:
        """Experts with twice an even load or more."""
        return np.flatnonzero(self.share >= HOT).tolist()


def routed_layers(trace: Trace) -> list[int]:
    return [layer for layer, experts in enumerate(trace.header.experts) if experts]


def weights_of(trace: Trace, layer: int) -> np.ndarray:
    """Return the weight of each expert for each read token, [N, E], zero where not selected.

    A token's weights are divided by their sum, so that tokens count alike.
    """
    read = trace.records[trace.records["read"]]
    count = trace.header.experts[layer]
    experts, weights = read["experts"][:, layer], np.nan_to_num(read["weights"][:, layer])
    spread = np.zeros((len(read), count + 1))
    rows = np.broadcast_to(np.arange(len(read))[:, None], experts.shape)
    np.add.at(spread, (rows, np.where(experts == NO_EXPERT, count, experts)), weights)
    total = spread[:, :count].sum(1, keepdims=True)
    return np.divide(spread[:, :count], total, out=np.zeros_like(total * spread[:, :count]),
                     where=total > 0)  # fmt: skip


def members_of(trace: Trace, layer: int) -> np.ndarray:
    """Return whether each read token went to each expert, [N, E]."""
    read = trace.records[trace.records["read"]]
    return (read["experts"][:, layer, :, None] == np.arange(trace.header.experts[layer])).any(1)


def load_of(trace: Trace, layer: int, phase: str | None = None) -> Load:
    """Return a layer's load, of the prompt, of what was generated, or (None) of both."""
    read = trace.records[trace.records["read"]]
    those = np.ones(len(read), bool) if phase is None else read["generated"] == PHASES[phase]
    members, weights = members_of(trace, layer)[those], weights_of(trace, layer)[those]
    experts, drawn, mass = members.shape[1], members.sum(0), weights.sum(0)
    return Load(
        layer, int(those.sum()),
        drawn * experts / max(drawn.sum(), 1), mass * experts / max(mass.sum(), 1e-30),
    )  # fmt: skip


def entropy_of(trace: Trace, layer: int) -> np.ndarray:
    """Return the entropy of the router's shares for each read token, over log E: 1 is undecided."""
    read = trace.records[trace.records["read"]]
    shares = read["shares"][:, layer, : trace.header.experts[layer]].astype(np.float64)
    logs = np.log(np.where(shares > 0, shares, 1.0))
    return -(shares * logs).sum(1) / max(np.log(shares.shape[1]), 1e-30)


@dataclass(frozen=True)
class Favourite:
    """A token that an expert draws more of than of others.

    Attributes:
        lift: the expert's share of this token's weight over its share of all weight; 1.0 is none.
        seen: how often the token was read.
    """

    token: int
    lift: float
    seen: int


@dataclass(frozen=True)
class Card:
    """What one expert did in a text: evidence for a hypothesis about it, no more.

    Attributes:
        load: its load and weight over even ones.
        favourites: tokens by lift, those that were read often enough.
        partners: the other experts by lift: how often both were selected over how often they would
            be if each were independent of the other.
        position: mean relative position (0 the first token, 1 the last) by weight; all tokens: 0.5.
    """

    layer: int
    expert: int
    share: float
    weight: float
    favourites: tuple[Favourite, ...]
    partners: tuple[tuple[int, float], ...]
    position: float


def card_of(trace: Trace, layer: int, expert: int, most: int = 6) -> Card:
    """Return the card of an expert."""
    read, load = trace.records[trace.records["read"]], load_of(trace, layer)
    weights, members = weights_of(trace, layer)[:, expert], members_of(trace, layer)
    tokens, inverse, seen = np.unique(read["token"], return_inverse=True, return_counts=True)
    mass = np.bincount(inverse, weights, len(tokens))
    share = weights.sum() / max(len(read), 1)
    lift = mass / np.maximum(seen, 1) / max(share, 1e-30)
    order = [i for i in np.argsort(-lift, kind="stable") if seen[i] >= LEAST_SEEN and lift[i] > 1]
    at = read["position"] / max(int(read["position"].max(initial=0)), 1)
    return Card(
        layer, expert, float(load.share[expert]), float(load.weight[expert]),
        tuple(Favourite(int(tokens[i]), float(lift[i]), int(seen[i])) for i in order[:most]),
        _partners(members, expert)[:most],
        float((at * weights).sum() / weights.sum()) if weights.sum() else float("nan"),
    )  # fmt: skip


def _partners(members: np.ndarray, expert: int) -> tuple[tuple[int, float], ...]:
    own, count = members[:, expert], len(members)
    expected = own.sum() * members.sum(0) / max(count, 1)
    both = (members & own[:, None]).sum(0)
    lift = np.divide(both, expected, out=np.zeros(members.shape[1]), where=expected > 0)
    order = [int(i) for i in np.argsort(-lift, kind="stable") if i != expert and both[i]]
    return tuple((i, float(lift[i])) for i in order)


def figures_of(trace: Trace) -> Mapping[str, object]:
    """Return the figures of all panels, for other programs."""
    read = trace.records[trace.records["read"]]
    layers = []
    for layer in routed_layers(trace):
        phases = {}
        for phase in PHASES:
            load = load_of(trace, layer, phase)
            phases[phase] = {
                "tokens": load.tokens, "load": load.share.round(6).tolist(),
                "weight": load.weight.round(6).tolist(), "dead": load.dead, "hot": load.hot,
            }  # fmt: skip
        margin = read["margin"][:, layer]
        layers.append({
            "layer": layer, **phases,
            "entropy": float(entropy_of(trace, layer).mean()) if len(read) else None,
            "margin_median": float(np.median(margin)) if len(read) else None,
        })  # fmt: skip
    counted = Counter(trace.records["generated"].tolist())
    surprise = trace.records["surprise"]
    known = surprise[~np.isnan(surprise)]
    return {
        "model": trace.header.model, "step": trace.header.step, "ending": trace.ending,
        "masked": list(trace.header.masked), "forced": list(trace.header.forced),
        "prompt_tokens": counted[False], "generated_tokens": counted[True],
        "mean_surprise": float(known.mean()) if len(known) else None, "layers": layers,
    }  # fmt: skip
