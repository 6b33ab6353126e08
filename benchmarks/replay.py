"""Routing replay on and off: do the routers of the update still choose as those of the rollout did?

A small fine-grained mixture of experts (32 experts in each of two layers, 4 a token) is trained on
Shakespeare's verse for a minute, and then reinforced by GRPO with several steps a rollout, so that
the weights of the update are no longer those that wrote. Each pair of runs differs in
`align.replay` alone, on the same seeds. Told are, over the steps that are not the first of their
rollout: the share of the rollout's experts that the routers would choose now; the deviation of the
importance ratios from 1; the share of tokens whose ratio was clipped; the largest KL of a rollout
to the start; and the reward at first and at last. --bits 4 keeps the rollout's keys and values in
4 bits, so that the function that writes is another one from the start.

Run: python benchmarks/replay.py --seeds 3
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch

import coterie
from coterie.api.alignment import align
from coterie.foundation.runs import runs_root

EXPERTS = {"count": 32, "mlp": {"kind": "mlp", "activation": "relu_squared", "width": 16}}
BASE = {
    "model.layers": 2, "model.width": 64, "model.context": 128, "model.embedding.rows": 2048,
    "model.ngram": None, "model.feedforward.experts": [EXPERTS],
    "model.feedforward.experts_per_token": 4, "train.sample_every": 0, "train.device": "cpu",
}  # fmt: skip
ROLLOUT = {"temperature": 1.0, "max_tokens": 48, "compute": "torch"}


def figures(name: str, updates: int) -> dict[str, float]:
    """Return what a run told."""
    lines = (runs_root() / name / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    rollouts = [e["figures"] for e in events if e["kind"] == "rollout"]
    rewards = [each["reward"] for each in rollouts]
    steps = [e["auxiliary"] for e in events if e["kind"] == "step"]
    later = [each for number, each in enumerate(steps) if number % updates]
    few = max(len(rewards) // 8, 1)

    def mean(*keys: str) -> float:
        return statistics.fmean(sum(each[key] for key in keys) for each in later)

    return {
        "agreement": mean("routing/agreement"),
        "ratio deviation": mean("importance_ratio/squares") ** 0.5,
        "clipped": mean("clip_ratio/low", "clip_ratio/high"),
        "largest KL": max(each["kl"] for each in rollouts),
        "first reward": statistics.fmean(rewards[:few]),
        "last reward": statistics.fmean(rewards[-few:]),
    }


def shown(of: Sequence[float]) -> str:
    return f"{statistics.fmean(of):.4f} ({min(of):.4f}–{max(of):.4f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--base-steps", type=int, default=500)
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--updates", type=int, default=4, help="steps of a rollout")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--bits", type=int, nargs="*", default=[0], help="of the rollout's cache")
    parser.add_argument("--base", help="a run that was made before")
    given = parser.parse_args()
    torch.set_num_threads(1)
    base = given.base
    if base is None:
        settings = {**BASE, "train.steps": given.base_steps, "train.evaluate_every": 0}
        base = coterie.train("sonnet", settings, name="replay-base").name
    found: dict[tuple[int, bool], list[dict[str, float]]] = {}
    for bits in given.bits:
        cache = {"cache": {"kind": "quantised", "bits": bits}} if bits else {}
        for seed in range(given.seeds):
            for replay in (True, False):
                name = f"{Path(base).name}-{bits}-{seed}-{'on' if replay else 'off'}"
                align("grpo", base, name=name, settings={
                    "seed": seed, "align.rewards": [{"kind": "metre"}], "align.replay": replay,
                    "align.updates": given.updates, "align.kl": 0.0, "align.prompt_lines": 1,
                    "align.rollout": {**ROLLOUT, **cache}, "train.steps": given.steps,
                    "train.optimizer.learning_rate": given.rate, "train.evaluate_every": 0,
                    "train.checkpoint_every": 0, "train.sample_every": 0, "train.device": "cpu",
                })  # fmt: skip
                found.setdefault((bits, replay), []).append(figures(name, given.updates))
    names = list(next(iter(found.values()))[0])
    print("| cache of the rollout | replay | " + " | ".join(names) + " |")
    print("|---|---|" + "---:|" * len(names))
    for (bits, replay), rows in found.items():
        cells = " | ".join(shown([row[name] for row in rows]) for name in names)
        print(f"| {f'{bits} bits' if bits else 'whole'} | {'on' if replay else 'off'} | {cells} |")


if __name__ == "__main__":
    main()
