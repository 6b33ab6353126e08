"""The same global batch on several processes: how far losses are from those of one.

Run: python benchmarks/invariance.py [--presets quickstart,gpt2] [--steps 50] [--layouts shard=2]

Each line trains a preset's small twin in float32 (gloo, one thread a process) and prints the
largest relative difference of a step's loss, gradient norm and validation loss from the run of one
process, and whether experts got the same loads. Two micro-batches a step. Where layers or heads are
divided there is no dropout and no noise, for those draw by themselves there, and four heads instead
of three. Layouts that a preset cannot have are told as such. Processes start once for all runs of
their number. Exits with 1 where a loss is off by over 1e-5.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing

from coterie.api.given import layer_of, resolve
from coterie.foundation.errors import SettingsError
from coterie.foundation.event_log import read_events
from coterie.foundation.layers import leaves
from coterie.foundation.runs import RunDirectory
from coterie.parallel.ranks import ALONE, Several
from coterie.train import RunSettings, machine, train
from coterie.train.events import Evaluated, LoadMeasured, StepDone

LAYOUTS = (
    "data=2", "shard=2", "data=2+expert=2", "tensor=2", "pipeline=2",
    "data=2+shard=2", "data=4", "shard=4", "data=2+tensor=2", "shard=2+tensor=2",
    "shard=4+expert=2", "data=2+expert=2+tensor=2", "data=2+pipeline=2",
    "data=2+expert=2+pipeline=2", "shard=2+pipeline=2", "tensor=2+pipeline=2",
)  # fmt: skip
PRESETS = ("quickstart", "gpt2", "mymoe", "blues", "yinggem", "yinghub", "s15era")
SHAPES = {"yinghub": (24, 64)}  # rows and tokens of a batch that fit its growing rows
TOLERANCE = 1e-5
Job = tuple[str, str, bool]
"""A preset, a layout, and whether it draws nothing."""


def axes_of(layout: str) -> dict[str, int]:
    """Return the sizes that a layout names."""
    return {
        axis: int(size) for axis, size in (each.split("=") for each in layout.split("+") if each)
    }


def settings_of(job: Job, given: argparse.Namespace) -> RunSettings:
    """Return the settings of a run."""
    preset, layout, quiet = job
    steps, (rows, context) = given.steps, SHAPES.get(preset, (8, 32))
    words: dict[str, Any] = {
        "train.steps": steps, "train.device": "cpu", "train.precision": "float32",
        "train.sample_every": 0, "train.evaluate_every": steps, "train.checkpoint_every": steps,
        "train.load_every": 1, "train.batch_size": rows, "train.gradient_accumulation": 2,
        "train.compile": False, "train.threads": 1, "data.valid_fraction": 0.002,
        "model.context": context,
        **dict(each.split("=", 1) for each in given.extra),
        **{f"parallel.{axis}": size for axis, size in axes_of(layout).items()},
    }  # fmt: skip
    layers = [layer_of(words)]
    settings = resolve(preset, layers, "tiny").settings
    if quiet:
        told = {f"model.{key}": value for key, value in quieted(settings.model.model_dump())}
        settings = resolve(preset, [*layers, layer_of(told)], "tiny").settings
    return settings


def quieted(model: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what sets dropout and noise of a model to nothing and makes heads even."""
    for path, value in leaves(model):
        key = ".".join(path)
        if path[-1] == "dropout" or path[-2:] == ("dropout", "rate"):
            yield key, 0.0
        elif path[-2:] == ("noise", "kind"):
            yield key.removesuffix(".kind"), {"kind": "none"}
        elif path[-2:] == ("attention", "heads"):
            yield key, value + value % 2


def name_of(job: Job) -> str:
    """Return the name of a run."""
    return "-".join((job[0], job[1].replace("=", "") or "one", *(["quiet"] if job[2] else [])))


def runs(rank: int, world: int, root: Path, jobs: list[Job], given: argparse.Namespace) -> None:
    """Train every run of so many processes, in one of them; the first prints each line."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    machine.measure_matmul = lambda precision, seconds=0.0: 1e11  # MFU is nothing that is told here
    if world > 1:
        store = distributed.FileStore(str(root / f"store{world}"), world)
        distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
    ranks = Several(torch.device("cpu")) if world > 1 else ALONE
    for job in jobs:
        run = RunDirectory(root / name_of(job))
        train(settings_of(job, given), run, preset=job[0], ranks=ranks)
        if rank == 0 and world > 1:
            told, _ = compared(root, job)
            print(told, flush=True)
    if world > 1:
        distributed.destroy_process_group()


def compared(root: Path, job: Job) -> tuple[str, float]:
    """Return the line of a run, and how far its losses are off."""
    one, other = read(root / name_of((job[0], "", job[2]))), read(root / name_of(job))
    found = [apart(one[name], other[name]) for name in ("loss", "norm", "valid")]
    loads = "none" if not one["loads"] else "equal" if one["loads"] == other["loads"] else "differ"
    told = "".join(f"{each:>10.1e}" for each in found)
    return f"{job[0]:<12}{job[1]:<28}{told}  {loads}", found[0]


def read(run: Path) -> dict[str, Any]:
    """Return the numbers of each step of a run."""
    events = list(read_events(run / "events.jsonl"))
    measured = [event for event in events if isinstance(event, LoadMeasured)]
    return {
        "loss": [event.loss for event in events if isinstance(event, StepDone)],
        "norm": [event.gradient_norm for event in events if isinstance(event, StepDone)],
        "valid": [event.loss for event in events if isinstance(event, Evaluated)],
        "loads": [[layer.load for layer in event.layers] for event in measured],
    }


def apart(one: list[float], other: list[float]) -> float:
    """Return the largest relative difference; infinite where there are not as many."""
    if len(one) != len(other):
        return float("inf")
    return max((abs(a - b) / abs(a) for a, b in zip(one, other, strict=True)), default=0.0)


def possible(job: Job, given: argparse.Namespace) -> bool:
    """Whether a preset can be divided so; says why not."""
    settings = settings_of(job, given)
    assert settings.parallel is not None
    rows = {stage.context: stage.rows for stage in settings.stages.stages}
    try:
        settings.parallel.require(world_of(job[1]), settings.model, rows, 2)
    except SettingsError as error:
        print(f"{job[0]:<12}{job[1]:<28}{error.message.splitlines()[-1]}", flush=True)
        return False
    return True


def world_of(layout: str) -> int:
    """Return the processes of a layout; experts are divided among those that divide rows."""
    return math.prod(size for axis, size in axes_of(layout).items() if axis != "expert")


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", default=",".join(PRESETS))
    parser.add_argument("--layouts", default=",".join(LAYOUTS))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--with", dest="extra", action="append", default=[], help="key=value")
    given = parser.parse_args()
    print(f"{'preset':<12}{'layout':<28}{'loss':>10}{'norm':>10}{'valid':>10}  loads", flush=True)
    jobs = [
        (preset, layout, "tensor" in layout or "pipeline" in layout)
        for preset in given.presets.split(",")
        for layout in given.layouts.split(",")
    ]
    jobs = [job for job in jobs if possible(job, given)]
    ones = dict.fromkeys((preset, "", quiet) for preset, _, quiet in jobs)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for world in sorted({1, *(world_of(job[1]) for job in jobs)}):
            some = [*ones] if world == 1 else [job for job in jobs if world_of(job[1]) == world]
            multiprocessing.spawn(runs, (world, root, some, given), nprocs=world)
        worst = max(compared(root, job)[1] for job in jobs)
    print(f"largest difference of a loss: {worst:.1e}")
    return worst > TOLERANCE


if __name__ == "__main__":
    sys.exit(main())
