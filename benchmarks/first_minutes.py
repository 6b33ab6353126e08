"""First minutes: our quickstart beside nanoGPT's published CPU recipe, on any text, in one run.

    python benchmarks/first_minutes.py FILE [--rounds 40] [--json]
    python benchmarks/first_minutes.py FILE --seeds 3
    python benchmarks/first_minutes.py FILE --variant train.optimizer.every=2 --variant ...

Both learn FILE character by character; the first 90 % of the characters train, the rest validates.
The baseline is that recipe's model inside our own decoder: dense, 4 layers of width 128, 4 heads,
context 64, LayerNorm, GELU, learned positions, no biases, tied head, batch 12, 2,000 iterations of
AdamW (0.9, 0.99) with a learning rate of 1e-3 falling along a cosine to 1e-4 after 100 steps of
warm-up, weight decay 0.1, gradient clipping at 1 (https://github.com/karpathy/nanoGPT, README,
"I only have a macbook"). Its published result is a validation loss of 1.88 after about 3 minutes.

The two take turns in one process: a slice of the baseline's steps, a slice of ours, and so on, so
that a busy machine slows both alike. Seconds are those of training steps alone, batches included.
Validation loss is the mean nats per character over the whole validation part, evaluation mode.

With `--seeds` our preset, with the steps of three minutes, is trained alone from several seeds, and
measured at the end of each quarter; what it took to count its n-grams is part of its seconds.

With `--variant` our preset takes turns with itself changed so, to choose by. Nothing is chosen on
the validation part: variants train on the first 80 % and are measured on the 10 % after it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from coterie.data import evaluation_batches
from coterie.evaluate import validate
from coterie.foundation.layers import Layer, load_settings, overrides_layer
from coterie.foundation.runs import RunDirectory
from coterie.presets import preset_layers
from coterie.train.session import Session, open_session
from coterie.train.settings import RunSettings

GOAL = 1.886  # the baseline's own validation loss after its 2,000 iterations

BASELINE = {
    "description": "nanoGPT's CPU recipe in our decoder",
    "seed": 1337,
    "model": {
        "layers": 4, "width": 128, "context": 64,
        "embedding": {"kind": "full"},
        "position": {"kind": "learned"},
        "norm": {"kind": "layer", "epsilon": 1e-5, "bias": False},
        "attention": {"kind": "grouped", "heads": 4, "bias": False},
        "feedforward": {"kind": "dense", "mlp": {"kind": "mlp", "width": 512, "bias": False}},
        "head": {"tied": True, "bias": False},
        "initial": {"std": 0.02, "outputs": "scaled"},
    },
    "train": {
        "steps": 2000, "batch_size": 12,
        "optimizer": {"kind": "adamw", "learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.99,
                      "weight_decay": 0.1, "decayed": ["matrix", "embedding", "head"]},
        "schedule": {"kind": "cosine", "warmup": 0.05, "final": 0.1},
        "clip": {"kind": "norm", "max_norm": 1.0},
    },
}  # fmt: skip


@dataclass
class Runner:
    """One side: its session, the time it has taken, and what it reached."""

    name: str
    session: Session
    seconds: float = 0.0
    slices: list[float] = field(default_factory=list)
    curve: list[tuple[int, float, float]] = field(default_factory=list)  # step, seconds, loss
    worst_load: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.batches = self.session.loader().iterate(0)
        self.step = 0

    @property
    def steps(self) -> int:
        return self.session.settings.train.steps

    def train(self, until: int) -> None:
        """Take steps up to `until`, timed."""
        count, begin = until - self.step, time.perf_counter()
        while self.step < until:
            result = self.session.stepper(self.step, next(self.batches))
            self.step += 1
            if self.step > self.steps // 2:
                ratios = [float(load.max() / load.float().mean())
                          for load in result.metrics.loads.values()]  # fmt: skip
                if ratios:
                    self.worst_load.append(max(ratios))
        seconds = time.perf_counter() - begin
        self.seconds += seconds
        if count:
            self.slices.append(seconds / count)

    def measure(self) -> None:
        """Record the validation loss; this time is nobody's."""
        store, precision = self.session.store, self.session.precision
        batches = evaluation_batches(store.tokens("valid"), self.session.settings.model.context, 64)
        result = validate(self.session.decoder, batches, autocast=precision.autocast)
        self.curve.append((self.step, self.seconds, result.loss))
        print(f"  {self.name:<10} step {self.step:>5}  {self.seconds:7.1f} s  "
              f"{result.loss:.4f} nats/character", file=sys.stderr, flush=True)  # fmt: skip

    def reached(self, loss: float) -> float | None:
        """Return the seconds at the first measurement at or below a loss."""
        return next((seconds for _, seconds, value in self.curve if value <= loss), None)

    def loss_at(self, seconds: float) -> tuple[float, float]:
        """Return (seconds, loss) of the last measurement within a time."""
        return [(at, value) for _, at, value in self.curve if at <= seconds][-1]

    def as_json(self) -> dict[str, object]:
        spread = statistics.quantiles(self.slices, n=10)
        return {
            "steps": self.steps,
            "tokens": self.step * self.session.tokens_per_step,
            "parameters": sum(p.numel() for p in self.session.decoder.parameters()),
            "seconds": round(self.seconds, 2),
            "ms_per_step": round(1e3 * statistics.median(self.slices), 2),
            "ms_per_step_10_90": [round(1e3 * spread[0], 2), round(1e3 * spread[-1], 2)],
            "validation_loss": round(self.curve[-1][2], 4),
            "curve": [(step, round(at, 2), round(loss, 4)) for step, at, loss in self.curve],
        }


def runner(
    name: str, layers: list[Layer], file: Path, folder: Path, fraction: float = 0.1
) -> Runner:
    """Build one side on a file, characters, tail split."""
    same = overrides_layer(
        [f"data.source={file.resolve()}", "data.split=tail", f"data.valid_fraction={fraction}",
         "tokenizer={kind: characters, special_tokens: []}"]
    )  # fmt: skip
    settings = load_settings(RunSettings, [*layers, same]).settings
    return Runner(name, open_session(settings, RunDirectory.create_fresh(folder, name)))


def compare(baseline: Runner, ours: Runner, rounds: int) -> dict[str, object]:
    """Let both sides take turns, and say who got where when."""
    for turn in range(1, rounds + 1):
        baseline.train(baseline.steps * turn // rounds)
        ours.train(ours.steps * turn // rounds)
        ours.measure()
        if turn in (rounds // 2, rounds):
            baseline.measure()
    reached = ours.reached(GOAL)
    ratios = [b / a for a, b in zip(baseline.slices, ours.slices, strict=True)]
    at, loss = ours.loss_at(baseline.seconds)
    return {
        "machine": {"cores": os.cpu_count(), "threads": torch.get_num_threads(),
                    "torch": torch.__version__, "gflops": round(ceiling() / 1e9)},
        "baseline": baseline.as_json(),
        "ours": ours.as_json(),
        "slice_time_ratio_median": round(
            statistics.median(ratios) * ours.steps / baseline.steps, 3),
        "goal": GOAL,
        "seconds_to_goal_ratio": None if reached is None else round(reached / baseline.seconds, 3),
        "within_baseline_time": {"seconds": round(at, 2), "loss": round(loss, 4)},
        "max_over_mean_load_last_half": round(statistics.mean(ours.worst_load), 3),
    }  # fmt: skip


def choose(file: Path, variants: list[str], rounds: int, folder: Path) -> None:
    """Let our preset and its variants take turns on what precedes the validation part."""
    text = file.read_text()
    inner = folder / "inner.txt"
    inner.write_text(text[: len(text) * 9 // 10])
    preset = preset_layers("quickstart", "minute")
    names = ["", *variants]
    sides = [
        runner("ours", [*preset, overrides_layer(name.split())], inner, folder, fraction=1 / 9)
        for name in names
    ]
    optimizer = [_timed(side) for side in sides]
    for turn in range(1, rounds + 1):
        for side in sides:
            side.train(side.steps * turn // rounds)
    for name, side, seconds in zip(names, sides, optimizer, strict=True):
        side.measure()
        low, *_, high = statistics.quantiles(side.slices, n=10)
        print(
            f"{name or 'as it is':<44} {1e3 * statistics.median(side.slices):6.1f} ms a step "
            f"({1e3 * low:.1f}-{1e3 * high:.1f}), optimizer "
            f"{1e3 * statistics.median(seconds):5.1f}; "
            f"{side.steps} steps: {side.curve[-1][2]:.4f}"
        )


def alone(file: Path, seeds: int, folder: Path) -> None:
    """Train our preset from several seeds and print its curve, with and without n-grams."""
    last = []
    for seed in range(1, seeds + 1):
        layers = [*preset_layers("quickstart"), overrides_layer([f"seed={seed}"])]
        side = runner(f"seed-{seed}", layers, file, folder)
        ngram = side.session.decoder.ngram
        assert ngram is not None
        tokens = side.session.store.tokens("train")
        begin = time.perf_counter()
        ngram.count([torch.from_numpy(tokens[0 : len(tokens)].astype("int64"))])
        side.seconds = time.perf_counter() - begin
        for quarter in range(1, 5):
            side.train(side.steps * quarter // 4)
            side.measure()
        last.append(side.curve[-1][2])
        side.session.decoder.ngram = None
        side.name = "… alone"
        side.measure()
    print(f"{statistics.mean(last):.4f} ({min(last):.4f} to {max(last):.4f}), {seeds} seeds")


def _timed(side: Runner) -> list[float]:
    """Return a list that the seconds of each step of a side's optimizer will be added to."""
    optimizer, seconds = side.session.stepper.optimizer, []
    move = optimizer.step

    def step(number: int, multiplier: float) -> None:
        begin = time.perf_counter()
        move(number, multiplier)
        seconds.append(time.perf_counter() - begin)

    optimizer.step = step
    return seconds


def ceiling(size: int = 2048, repeats: int = 7) -> float:
    """Return the machine's float32 matrix-product rate, FLOP/s, the best of a few."""
    a, best = torch.randn(size, size), float("inf")
    for _ in range(repeats):
        begin = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path, help="any text")
    parser.add_argument("--rounds", type=int, default=40, help="turns that the two sides take")
    parser.add_argument("--seeds", type=int, help="train our preset alone, so many times")
    parser.add_argument("--variant", action="append", default=[], metavar="'KEY=VALUE ...'",
                        help="our preset beside itself changed so, to choose by")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the result as JSON alone")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["COTERIE_CACHE"] = str(folder / "cache")
        if arguments.seeds:
            alone(arguments.file, arguments.seeds, folder)
            return
        if arguments.variant:
            choose(arguments.file, arguments.variant, arguments.rounds, folder)
            return
        baseline = runner("baseline", [Layer("baseline", BASELINE)], arguments.file, folder)
        ours = runner("ours", preset_layers("quickstart", "minute"), arguments.file, folder)
        result = compare(baseline, ours, arguments.rounds)
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    print(f"machine {result['machine']}")
    for side in ("baseline", "ours"):
        row = {key: value for key, value in result[side].items() if key != "curve"}  # type: ignore[union-attr]
        print(f"{side:<9}{row}")
    print(f"ours reaches {result['goal']} in {result['seconds_to_goal_ratio']} x the baseline's "
          f"whole time; within that time it reaches {result['within_baseline_time']}; "
          f"max/mean load over the last half {result['max_over_mean_load_last_half']} "
          "(worst layer of each step, mean)")  # fmt: skip


if __name__ == "__main__":
    main()
