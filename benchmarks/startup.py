"""From the shell to the first token: `coterie --help`, and a model of about 100 M parameters.

    python benchmarks/startup.py [--repeats 7] [--cold] [--folder DIR]

A checkpoint as training leaves it (weights, moments of AdamW, GPT-2's tokenizer) is made once in
--folder. Each figure is a fresh process, measured from outside: median seconds over the repeats and
half the distance of the quartiles. The stages are told by a process that loads the model step by
step. With --cold the checkpoint's files leave the page cache before each run (posix_fadvise); the
libraries stay in it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

MODEL = {
    "layers": 8, "width": 512, "context": 512, "attention": {"kind": "grouped", "heads": 8},
    "feedforward": {"kind": "moe", "experts": [{"count": 8, "mlp": {"kind": "mlp", "width": 768}}],
                    "experts_per_token": 2},
}  # fmt: skip
STAGES = """
import sys, time
began = time.perf_counter()
def told(stage):
    global began
    print(f"{stage}\\t{time.perf_counter() - began}")
    began = time.perf_counter()
import torch
told("import torch")
import coterie.api.model as api
told("import coterie.api.model")
from coterie.checkpoint import load_model, locate_checkpoint
loaded = load_model(sys.argv[1])
told("load the model")
model = api.Model(loaded)
next(iter(model.stream("Once", temperature=0, max_tokens=1)))
told("first token")
"""


def make(folder: Path) -> Path:
    """Return a checkpoint, made if it is not there."""
    from coterie.checkpoint import save_checkpoint
    from coterie.checkpoint.layout import directory_name
    from coterie.tokenizer.settings import parse_tokenizer
    from coterie.train.memory import role_parameters
    from coterie.train.optimizer.adamw import AdamW
    from coterie.train.randomness import random_state
    from coterie.train.settings import RunSettings

    path = folder / directory_name(1)
    if path.exists():
        return path
    tokenizer = parse_tokenizer("gpt2", ()).build([])
    settings = RunSettings.model_validate(
        {"model": {**MODEL, "vocab_size": tokenizer.vocab_size}, "tokenizer": {"kind": "tiktoken"}}
    )
    decoder = settings.model.build()
    optimizer = AdamW().build(role_parameters(decoder))
    for parameter in decoder.parameters():
        parameter.grad = parameter.detach().clone()
    optimizer.step(0, 1.0)
    save_checkpoint(
        folder, 1, model=decoder, optimizer_state=optimizer.state(), settings=settings,
        state={"random": random_state()}, tokenizer=tokenizer,
    )  # fmt: skip
    return path


def forget(folder: Path) -> None:
    """Let the page cache forget the files of a folder."""
    for file in folder.iterdir():
        handle = os.open(file, os.O_RDONLY)
        os.fdatasync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def shown(name: str, values: list[float]) -> None:
    """Print a median and half the distance of the quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    print(f"{name:34}{middle:8.3f} s ± {(high - low) / 2:.3f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--folder", default=str(Path(tempfile.gettempdir()) / "coterie-startup"))
    options = parser.parse_args()
    path = make(Path(options.folder))
    size = sum(file.stat().st_size for file in path.iterdir())
    print(f"{path}: {size / 1e6:,.0f} MB, {options.repeats} repeats"
          f"{', checkpoint not in the page cache' if options.cold else ''}")  # fmt: skip
    coterie = [sys.executable, "-m", "coterie"]
    commands = {
        "coterie --help": [*coterie, "--help"],
        "coterie generate, one token": [*coterie, "generate", str(path), "Once", "max_tokens=1"],
    }
    whole: dict[str, list[float]] = defaultdict(list)
    stages: dict[str, list[float]] = defaultdict(list)
    for _ in range(options.repeats):
        for name, command in commands.items():
            if options.cold:
                forget(path)
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            whole[name].append(time.perf_counter() - began)
        if options.cold:
            forget(path)
        told = subprocess.run(
            [sys.executable, "-c", STAGES, str(path)], check=True, capture_output=True, text=True
        )
        for line in told.stdout.splitlines():
            stage, _, seconds = line.partition("\t")
            stages[stage].append(float(seconds))
    for name, values in [*whole.items(), *((f"  {name}", each) for name, each in stages.items())]:
        shown(name, values)


if __name__ == "__main__":
    main()
