"""Commands of Coterie as forked children of a process that has imported everything.

A child costs hundredths of a second instead of the two that importing torch takes, so that a stress
program can start thousands. Imported by `races.py`, `kills.py` and `full_disks.py`.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import hashlib
import importlib
import io
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is loaded
os.environ.update(NO_COLOR="1", TERM="dumb", TOKENIZERS_PARALLELISM="false")
for _name in (
    "cli.align",
    "cli.data",
    "cli.data_texts",
    "cli.parts",
    "cli.exchange",
    "cli.model",
    "cli.presets",
    "cli.reinforce",
    "cli.report",
    "cli.runs",
    "cli.tokenizer",
    "cli.train",
    "api.alignment",
    "exchange.gguf",
    "exchange.huggingface",
    "visualise.plots",
    "visualise.terminal",
):
    importlib.import_module(f"coterie.{_name}")
with contextlib.suppress(ImportError):
    importlib.import_module("gguf")
importlib.import_module("torch._dynamo")  # seconds, which the first model built would cost
importlib.import_module("torch").set_num_threads(1)
importlib.import_module("coterie.train.machine").measure_matmul = lambda *_, **__: 1e11
run = importlib.import_module("coterie.cli.app").run
verify_store = importlib.import_module("coterie.data").verify_store

SETTINGS = """
seed: 11
data: {source: text.txt, valid_fraction: 0.1, split: tail}
tokenizer: {kind: bytes}
model:
  layers: 1
  width: 16
  context: 16
  attention: {kind: grouped, heads: 2}
  feedforward: {kind: dense, mlp: {kind: gated, width: 16}}
train: {steps: 8, batch_size: 4, evaluate_every: 4, checkpoint_every: 2, keep: 2, sample_every: 0}
"""
TEXT = "".join(f"{n} and {n + 1} make {2 * n + 1}; so says the fool.\n" for n in range(60))

OTHER = "".join(f"{n % 10} {n // 10 % 10} {n // 100}\n" for n in range(1000))
"""Short words, so that a share of it is met by cutting between two."""


@dataclass
class Child:
    """A command that runs in a process of its own."""

    pid: int
    output: Path
    words: list[str]
    code: int | None = None

    def wait(self) -> int:
        """Return its exit code, -9 if it was killed."""
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code

    def kill(self) -> int:
        """End it at once, as a power cut would."""
        os.kill(self.pid, 9)
        return self.wait()

    @property
    def said(self) -> str:
        """What it printed."""
        return self.output.read_text(encoding="utf-8", errors="replace")


class Gate:
    """Holds children back until it is opened, so that they start in the same moment."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def open(self) -> None:
        """Let them go."""
        os.close(self.reader)
        os.close(self.writer)


def enter(folder: Path, output: Path) -> None:
    """Go on in a folder, its runs and cache inside, and print into a file there."""
    os.chdir(folder)
    os.environ.update(COTERIE_RUNS="runs", COTERIE_CACHE="cache")
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.FileIO(number, "w", closefd=False), "utf-8") for number in (1, 2)
    )


def start(
    words: list[str], folder: Path, gate: Gate | None = None, said: Path | None = None
) -> Child:
    """Start a command in a folder; behind a gate if there is one; what it prints goes to `said`."""
    output = said or folder / f"said-{time.monotonic_ns()}.txt"
    pid = os.fork()
    if pid:
        return Child(pid, output, words)
    code = 70
    try:
        enter(folder, output)
        if gate is not None:
            os.close(gate.writer)
            os.read(gate.reader, 1)
        code = run(words)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def room(prefix: str) -> tempfile.TemporaryDirectory[str]:
    """Return a temporary folder, in memory if it can be: thousands of flushes wait for no disk."""
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(prefix=prefix, dir=memory if memory.is_dir() else None)


def alone(words: list[str], folder: Path) -> Child:
    """Run a command to its end."""
    child = start(words, folder)
    child.wait()
    return child


def together(commands: list[list[str]], folder: Path) -> list[Child]:
    """Run commands that begin in the same moment."""
    gate = Gate()
    children = [start(words, folder, gate) for words in commands]
    gate.open()
    for child in children:
        child.wait()
    return children


def workshop(folder: Path) -> Path:
    """Make a folder with a text, settings and nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    (folder / "tiny.yaml").write_text(SETTINGS, encoding="utf-8")
    return folder


def copy(source: Path, target: Path) -> Path:
    """Return a copy of a workshop."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)
    return target


def digest(path: Path) -> str:
    """Return what a file or directory holds, as a hash; "" if there is none."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    if not path.is_dir():
        return ""
    found = {
        str(each.relative_to(path)): digest(each) for each in path.rglob("*") if not each.is_dir()
    }
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def result_of(run_folder: Path) -> str:
    """Return what a run came to: newest weights, moments and state, and its seed, as a hash."""
    steps = sorted((run_folder / "checkpoints").glob("step-*"))
    if not steps:
        return ""
    state = json.loads((steps[-1] / "state.json").read_text())
    state.pop("train_seconds", None)
    state["random"].pop("python", None)
    config = (run_folder / "config.yaml").read_text().partition("tokenizer")[0]
    parts = [steps[-1].name, json.dumps(state, sort_keys=True), config]
    parts += [digest(steps[-1] / name) for name in ("model.safetensors", "optimizer.safetensors")]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def is_sound(store: Path) -> bool:
    """Return whether every byte of a store is as its manifest says."""
    return store.is_dir() and not verify_store(store)


def leftovers(folder: Path) -> list[str]:
    """Return every hidden name below a folder: locks, half-written and set-aside things."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob(".*") if p.name != ".")


def refused_in_words(child: Child) -> bool:
    """Return whether a command was refused as a person would be: exit 2 and a reason."""
    reasons = ("is being written by", "exists already", "There is a run")
    return child.code == 2 and any(reason in child.said for reason in reasons)


def options_of(
    arguments: Sequence[str] | None, description: str, names: Iterable[str], rounds: int, each: str
) -> argparse.Namespace:
    """Read the command line of a stress program (`names`, `rounds`, `seed`) and print its seed."""
    known = list(names)
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("names", nargs="*", choices=[*known, []], help="all, if none is named")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    options = parser.parse_args(arguments)
    options.names = options.names or known
    print(f"seed {options.seed}, {options.rounds} {each} each", flush=True)
    return options


@dataclass
class Tally:
    """How rounds came out; those that went wrong are printed as they come."""

    bad: int = 0
    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)

    def add(self, where: str, outcome: str, problem: str) -> None:
        """Count one round; a problem makes it a bad one."""
        self.outcomes[outcome or "WRONG"] += 1
        if problem:
            self.bad += 1
            print(f"  {where}: {problem}", flush=True)

    def close(self, what: str) -> None:
        """Print how all rounds of one thing came out, and begin with the next."""
        told = "; ".join(f"{count} × {outcome}" for outcome, count in self.outcomes.most_common())
        print(f"{what}: {told}", flush=True)
        self.outcomes.clear()

    def exit_code(self) -> int:
        """Print the verdict on everything and return the exit code."""
        print("all as they should be" if not self.bad else f"{self.bad} rounds went wrong")
        return 1 if self.bad else 0
