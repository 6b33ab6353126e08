"""Learn what metre and rhyme charge for, from sonnets 1-77, and write it as data.

    python scripts/build_verse_costs.py             learn and write tables/costs.json
    python scripts/build_verse_costs.py --verify    compare with what is shipped, write nothing

Scansion: each line is scanned with plain starting costs; a logistic regression then tells real
lines from shuffled ones and from windows of prose by what was charged for. Its weights,
held near the starting costs, are the costs. The limit of a metrical line is what 88 % of lines keep
to when each half of the sonnets is scanned with what the other half taught.

Rhyme: how often each distance occurs between lines that rhyme, and between near ones that do not.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from verse_material import PROSE_TAUGHT, TAUGHT, prose_windows, rhyme_pairs, shuffled, sonnets

from coterie.language.verse.dictionary import TABLES
from coterie.language.verse.lines import Word, words
from coterie.language.verse.rhyme import distance
from coterie.language.verse.scansion import Automaton, cheapest

PATTERN = "wswswswsws"
KEPT = 0.88
SHUFFLES = 6
HELD = 2.0  # how strongly weights are held near the starting costs
EDGES = (0.0, 0.07, 0.13, 0.19, 0.25, 0.3, 0.36, 0.45, 0.6, 9.0)
Costs = dict[str, float]


def starting_costs() -> Costs:
    """Return plain costs: light syllables in strong positions, heavy ones in weak, and licences."""
    costs = {f"strong {weight}": 1.0 for weight in "0AOJM"}
    costs |= {f"strong {weight}": 0.5 for weight in "PIBV"}
    costs |= {f"weak {weight}": 0.5 for weight in "NXDYQ"}
    costs |= {"weak 1": 5.0, "weak 2": 1.5, "weak C": 1.0}
    for foot, cost in enumerate((1.5, 2.5, 2.5, 2.0, 4.0), start=1):
        costs |= {f"inversion {foot}{START}": cost for START in "^|"}
        costs[f"inversion {foot}"] = cost + 1.0
    names = ["elision", "contraction", "expansion", "sounded -ed", "shifted stress", "synaloepha"]
    costs |= {f"licence {name}": 1.0 for name in names}
    costs |= {f"feminine {weight}": 2.0 for weight in "12CQBPOAJIMVNDYX"}
    return costs | {"feminine 0": 0.5, "feminine 3": 0.5}


def charged(lines: Sequence[list[Word]], costs: Costs) -> list[Counter[str]]:
    """Return what each line is charged for, without those that do not fit."""
    machine = Automaton(PATTERN, costs=costs)
    scans = (cheapest(line, machine)[1] for line in lines)
    return [Counter(key for move in moves for key in move.keys) for moves in scans if moves]


def learn(real: Sequence[str], prose: Sequence[list[Word]]) -> Costs:
    """Return the costs that some lines teach, in nats against a line being verse."""
    start, randomness = starting_costs(), random.Random(1)
    mixed = [words(shuffled(line, randomness)) for line in real for _ in range(SHUFFLES)]
    groups = [charged(lines, start) for lines in (list(map(words, real)), mixed, prose)]
    keys = sorted({key for group in groups for line in group for key in line})
    at = {key: index for index, key in enumerate(keys)}
    rows = np.zeros((sum(map(len, groups)), len(keys)), np.float32)
    for row, line in enumerate(line for group in groups for line in group):
        for key, count in line.items():
            rows[row, at[key]] = count
    weights = np.repeat([1.0, *(0.5 * len(groups[0]) / len(each) for each in groups[1:])],
                        [len(each) for each in groups])  # fmt: skip
    is_real = torch.arange(len(rows)) < len(groups[0])
    fit = _regress(torch.from_numpy(rows), is_real.float(), torch.tensor(weights),
                   torch.tensor([start.get(key, 0.0) for key in keys]))  # fmt: skip
    return start | dict(zip(keys, fit.tolist(), strict=True))


def _regress(
    rows: torch.Tensor, real: torch.Tensor, weights: torch.Tensor, start: torch.Tensor
) -> torch.Tensor:
    costs, bias = start.clone().requires_grad_(), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([costs, bias], max_iter=150, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        each = torch.nn.functional.binary_cross_entropy_with_logits(
            bias - rows @ costs, real, reduction="none"
        )
        total = (weights * each).sum() + HELD * (costs - start).square().sum() / 2
        total.backward()
        return total

    optimizer.step(loss)
    return costs.detach()


def costs_of(lines: Sequence[str], costs: Mapping[str, float]) -> list[float]:
    """Return what lines cost, infinite for those that do not fit."""
    machine = Automaton(PATTERN, costs=costs)
    return [cheapest(words(line), machine)[0] for line in lines]


def learn_metre() -> Costs:
    """Return the costs of scansion and the limit, counted from the most regular line taught."""
    taught = sonnets()[:TAUGHT]
    prose = list(map(words, prose_windows(PROSE_TAUGHT)))
    halves = [[line for sonnet in taught[first::2] for line in sonnet] for first in (0, 1)]
    held_out = []
    for half, other in (halves, halves[::-1]):
        costs = based(learn(half, prose), half)
        held_out += costs_of(other, costs)
    lines = [line for sonnet in taught for line in sonnet]
    costs = based(learn(lines, prose), lines)
    return {"limit": float(np.quantile(held_out, KEPT)), **costs}


def based(costs: Costs, lines: Sequence[str]) -> Costs:
    """Return costs moved by so much a position that the most regular lines cost nothing."""
    base = float(np.quantile(costs_of(lines, costs), 0.01)) / len(PATTERN)
    return {key: cost - base * key.startswith(("weak ", "strong ")) for key, cost in costs.items()}


def learn_rhyme() -> list[tuple[float, float]]:
    """Return upper edges of distances with their evidence for a rhyme, in nats."""
    rhyming, others = rhyme_pairs(sonnets()[:TAUGHT])
    counts = np.array([_histogram(rhyming), _histogram(others)]) + 0.5
    shares = counts / counts.sum(1, keepdims=True)
    weights = [math.log(rhyme / other) for rhyme, other in shares.T]
    # More distance is never better evidence.
    return [(edge, min(weights[: index + 1])) for index, edge in enumerate(EDGES)]


def _histogram(pairs: Sequence[tuple[str, str]]) -> list[int]:
    bins = np.searchsorted(EDGES, [distance(*pair) - 1e-9 for pair in pairs])
    return np.bincount(bins, minlength=len(EDGES)).tolist()


def main() -> int:
    """Learn and write, or compare; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--verify", action="store_true", help="compare only, write nothing")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    found = {key: round(value, 3) for key, value in sorted(learn_metre().items())}
    rhymes = [[edge, round(weight, 3)] for edge, weight in learn_rhyme()]
    path = TABLES / "costs.json"
    if arguments.verify:
        shipped = json.loads(path.read_text("utf-8"))
        apart = [key for key in found | shipped if key != "rhyme"
                 and abs(found.get(key, 9) - shipped.get(key, 9)) > 0.05]  # fmt: skip
        print(f"Different: {apart}" if apart else "The costs are what the sonnets teach.")
        return bool(apart)
    lines = ",\n".join(
        f" {json.dumps(k)}: {json.dumps(v)}" for k, v in [*found.items(), ("rhyme", rhymes)]
    )
    path.write_text("{\n" + lines + "\n}\n", encoding="utf-8")
    print(f"{path}: {len(found):,} costs, limit {found['limit']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
