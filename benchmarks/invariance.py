"""The same global batch on several processes: how far losses are from those of one.

Run: python benchmarks/invariance.py [--presets quickstart,gpt2] [--steps 50] [--layouts shard=2]

Each line trains a preset's small twin in float32 (gloo, one thread a process) and prints the
largest relative difference of a step's loss, gradient norm and validation loss from the run of one
process, and whether experts got the same loads. Exits with 1 where a loss is off by over 1e-5.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from coterie.foundation.event_log import read_events
from coterie.train.events import Evaluated, LoadMeasured, StepDone

LAYOUTS = ("data=2", "shard=2", "data=2+shard=2", "data=4", "shard=4")
PRESETS = ("quickstart", "gpt2", "mymoe", "blues", "yinggem", "yinghub", "s15era")
TOLERANCE = 1e-5


def train(preset: str, steps: int, layout: str, root: Path, extra: list[str]) -> dict[str, Any]:
    """Train in the processes of a layout; return the numbers of each step."""
    axes = dict(axis.split("=") for axis in layout.split("+") if axis)
    name = f"{preset}-{layout or 'one'}".replace("=", "").replace("+", "-")
    words = [
        preset, "scale=tiny", f"train.steps={steps}", "train.device=cpu", "train.precision=float32",
        "train.sample_every=0", f"train.evaluate_every={steps}", f"train.checkpoint_every={steps}",
        "train.load_every=1", "train.batch_size=8", "train.compile=false", *extra,
        *(f"parallel.{axis}={size}" for axis, size in axes.items()), "--name", name,
    ]  # fmt: skip
    world = 1
    for size in axes.values():
        world *= int(size)
    if world > 1:
        words += ["--devices", str(world)]
    environment = {**os.environ, "COTERIE_RUNS": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "coterie", "train", *words],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{' '.join(words)} failed:\n{done.stderr[-3000:]}")
    events = list(read_events(root / name / "events.jsonl"))
    steps_done = [event for event in events if isinstance(event, StepDone)]
    measured = [event for event in events if isinstance(event, LoadMeasured)]
    return {
        "loss": [event.loss for event in steps_done],
        "norm": [event.gradient_norm for event in steps_done],
        "valid": [event.loss for event in events if isinstance(event, Evaluated)],
        "loads": [[layer.load for layer in event.layers] for event in measured],
    }


def apart(one: list[float], other: list[float]) -> float:
    """Return the largest relative difference; infinite where there are not as many."""
    if len(one) != len(other):
        return float("inf")
    return max((abs(a - b) / abs(a) for a, b in zip(one, other, strict=True)), default=0.0)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", default=",".join(PRESETS))
    parser.add_argument("--layouts", default=",".join(LAYOUTS))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--with", dest="extra", action="append", default=[], help="key=value")
    given = parser.parse_args()
    print(f"{'preset':<12}{'layout':<16}{'loss':>10}{'norm':>10}{'valid':>10}  loads")
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for preset in given.presets.split(","):
            one = train(preset, given.steps, "", Path(folder), given.extra)
            for layout in given.layouts.split(","):
                other = train(preset, given.steps, layout, Path(folder), given.extra)
                found = [apart(one[name], other[name]) for name in ("loss", "norm", "valid")]
                loads = "equal" if one["loads"] == other["loads"] else "differ"
                told = "".join(f"{each:>10.1e}" for each in found)
                print(f"{preset:<12}{layout:<16}{told}  {loads}", flush=True)
                worst = max(worst, found[0])
    return worst > TOLERANCE


if __name__ == "__main__":
    sys.exit(main())
