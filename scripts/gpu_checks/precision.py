"""Learning in bfloat16 beside float32: whether the curves differ by more than those of seeds."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from gpu_checks.registry import Bench, Cases, check
from gpu_checks.training import Shell, ended, losses, text_of

SIDES, SEEDS = ("float32", "bfloat16"), (1, 2, 3)


def evaluations(run: Path) -> dict[int, float]:
    """Return the validation losses that a run's record tells of, by step."""
    events = map(json.loads, (run / "events.jsonl").read_text(encoding="utf-8").splitlines())
    return {each["step"]: each["loss"] for each in events if each.get("kind") == "evaluated"}


def compared(curves: dict[str, list[float]]) -> dict[str, Any]:
    """Return what each side reached, one number a seed, and how far apart the sides are.

    Seeds decide weights and batches alike in both types, so they are compared in pairs as well.
    """
    plain, half = (curves[side] for side in SIDES)
    return {
        **{side: [round(each, 4) for each in curves[side]] for side in SIDES},
        "spread": {side: round(max(curves[side]) - min(curves[side]), 4) for side in SIDES},
        "means differ by": round(statistics.fmean(half) - statistics.fmean(plain), 4),
        "same seed differs by": [round(b - a, 4) for a, b in zip(plain, half, strict=True)],
    }


@check("precision.curve", "train", limit=120)
def curve(bench: Bench) -> dict[str, Any]:
    """Train `quickstart` 1,000 steps in each type with three seeds, all six side by side.

    The means of the sides must differ by less than the seeds of one side do, at each evaluation.
    """
    shell, cases = Shell(bench, "curve"), Cases(bench)
    steps = 12 if bench.tiny else 1000
    words = ["train", "quickstart", f"train.device={bench.device}", f"train.steps={steps}",
             f"train.evaluate_every={steps // 4}", "train.checkpoint_every=0",
             "train.sample_every=0", "train.compile=false", "train.threads=1",
             "--json"]  # fmt: skip
    if bench.tiny:
        words += ["scale=tiny", f"data.source={text_of(bench)}", "data.split=tail"]
    seeds = bench.some(SEEDS, 2)
    runs = [(side, seed) for seed in seeds for side in SIDES]
    started = {
        (side, seed): shell.start(*words, f"train.precision={side}", f"seed={seed}",
                                  "--name", f"{side}-{seed}")
        for side, seed in runs
    }  # fmt: skip
    for (side, seed), process in started.items():
        with cases(f"{side} {seed}"):
            seconds = json.loads(ended(process, tuple(words)))["seconds"]
            cases.figures[f"{side} {seed}"] = {"s": round(seconds, 1)}
    folders = {side: [shell.runs / f"{side}-{seed}" for seed in seeds] for side in SIDES}
    with cases("validation"):
        found = {side: [evaluations(run) for run in each] for side, each in folders.items()}
        far = []
        for step in found[SIDES[0]][0]:
            one = compared({side: [run[step] for run in each] for side, each in found.items()})
            cases.figures[f"validation after {step}"] = one
            if abs(one["means differ by"]) > max(one["spread"].values()):
                far.append(step)
        assert not far, f"the types differ by more than seeds do after {far}"
    with cases("training"):
        told = {side: [losses(run) for run in each] for side, each in folders.items()}
        for end in range(steps // 4, steps + 1, steps // 4):
            last = slice(end - steps // 8, end)
            one = {side: [statistics.fmean(run[last]) for run in each]
                   for side, each in told.items()}  # fmt: skip
            cases.figures[f"training, {steps // 8} steps to {end}"] = compared(one)
    return cases.result()
