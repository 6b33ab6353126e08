"""Peak memory of training steps beside the estimate of `--dry-run`, for presets and settings.

    python benchmarks/memory.py                      # every preset at scale tiny, as it is
    python benchmarks/memory.py s15era --each        # and with each setting that saves memory
    python benchmarks/memory.py s15era --each --planned --scale full --set model.vocab_size=49152

Each row is measured in a process of its own: two steps under torch's profiler, which sees every
allocation of the CPU's allocator from before the model is built, what operators hold inside
themselves included; resident memory is the growth of the process's own peak over the imports.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import time
from math import nan
from pathlib import Path

SAVINGS = [
    [],
    ["train.gradient_accumulation=4"],
    ["train.activation_checkpointing=false"],
    ["train.activation_checkpointing=selective"],
    ["train.activation_checkpointing=true"],
    ["train.activation_checkpointing=true", "train.gradient_accumulation=4"],
    ["train.precision=bfloat16"],
    ["train.ema=0.999"],
    ["train.optimizer={kind: adafactor}"],
    ["train.optimizer={kind: muon}"],
    ["model.vocab_size=49152"],
    ["model.layers=8"],
]
PRESETS = ["quickstart", "gpt2", "yinggem", "yinghub", "blues", "s15era", "mymoe"]


def measured(preset: str, scale: str, words: list[str], planned: bool) -> dict[str, float]:
    """Return the bytes of one row; imports and runs in this process."""
    import torch

    from coterie.batch import TokenBatch
    from coterie.foundation.layers import load_settings, overrides_layer
    from coterie.presets import preset_layers
    from coterie.train.average import WeightAverage
    from coterie.train.memory import estimate_memory
    from coterie.train.precision import resolve_device, resolve_precision
    from coterie.train.roles import role_parameters
    from coterie.train.session import make_stepper
    from coterie.train.settings import RunSettings

    base = ["model.vocab_size=1024", "train.steps=10"]
    named = None if scale == "full" else scale
    layers = [*preset_layers(preset, named), overrides_layer([*base, *words])]
    run = load_settings(RunSettings, layers).settings
    tagged = tuple(each.with_ids(dict.fromkeys(each.tags().values(), 0))
                   for each in run.model.additive)  # fmt: skip
    run = run.model_copy(update={"model": run.model.model_copy(update={"additive": tagged})})
    name = run.train.precision if run.train.precision != "auto" else "float32"
    precision = resolve_precision(name, resolve_device("cpu"))
    estimate_memory(run, precision)  # imports what it needs
    begin = time.process_time()
    parts = estimate_memory(run, precision)
    seconds = time.process_time() - begin
    if planned:
        return {"peak": nan, "resident": nan, "estimate": sum(parts.values()), "seconds": seconds}
    tokens = torch.randint(0, 1000, (run.train.batch_size, run.model.context + 1))
    settled = _resident("VmRSS")
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        decoder = run.model.build().train()
        decoder.activation_checkpointing = run.train.activation_checkpointing
        stepper = make_stepper(
            run, decoder, run.train.optimizer.build(role_parameters(decoder)), precision
        )
        if run.train.ema is not None:
            stepper.average = WeightAverage(role_parameters(decoder), run.train.ema)
        batch = TokenBatch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
        for step in range(2):
            stepper(step, batch)
    resident = _resident("VmHWM") - settled
    now = peak = 0
    assert profile.profiler is not None
    events = profile.profiler.kineto_results.events()
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return {"peak": peak, "resident": resident, "estimate": sum(parts.values()), "seconds": seconds}


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) << 10


def main() -> None:
    """Print a row for each run asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("presets", nargs="*", default=PRESETS)
    parser.add_argument("--scale", default="tiny")
    parser.add_argument("--each", action="store_true", help="with each setting that saves memory")
    parser.add_argument("--planned", action="store_true", help="estimate alone, nothing is run")
    parser.add_argument("--set", action="append", default=[], help="a key=value for all rows")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        words = json.loads(options.row)
        row = measured(options.presets[0], options.scale, words, options.planned)
        print(json.dumps(row))
        return
    print("| preset | settings | estimate, MiB | allocated, MiB | estimate / allocated "
          "| resident, MiB | seconds |\n|---|---|---:|---:|---:|---:|---:|")  # fmt: skip
    for preset in options.presets:
        for words in SAVINGS if options.each else [[]]:
            asked = [*options.set, *words]
            command = [sys.executable, __file__, preset, "--scale", options.scale,
                       "--row", json.dumps(asked), *["--planned"] * options.planned]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"| {preset} | {' '.join(asked)} | {done.stderr.strip().splitlines()[-1]} |")
                continue
            row = json.loads(done.stdout.splitlines()[-1])
            sizes = [row[name] / 2**20 for name in ("estimate", "peak", "resident")]
            print(f"| {preset} | {' '.join(asked) or '–'} | {sizes[0]:,.1f} | {sizes[1]:,.1f} "
                  f"| {sizes[0] / sizes[1]:.3f} | {sizes[2]:,.1f} | {row['seconds']:.2f} |",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
