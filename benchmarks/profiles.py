"""Where the steps of presets and of two small mixtures go, and what they took at another commit.

    python benchmarks/profiles.py [coarse fine quickstart s15era …] [--most 10]
    python benchmarks/profiles.py [names …] --beside COMMIT [--rounds 7]

*coarse* and *fine* are those of `step.py`, quickstart is whole, the other presets are at quarter
size: a quarter of their layers, 4,096 pieces of our own tokenizer, 1,024 tokens a step at once; all
in float32. Without `--beside` it prints the dearest items of a step as `coterie train --profile`
records them: an operation in a part of the model, forward or (←) backward. With it the commit is
checked out, and both take steps in turns, each in a process of its own, from the same weights.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from step import SHAPES, settings_of

from coterie.foundation.layers import Layer, load_settings
from coterie.foundation.runs import RunDirectory
from coterie.presets import preset_layers
from coterie.train.session import Session, open_session
from coterie.train.settings import RunSettings

PRESETS = ("quickstart", "yinghub", "yinggem", "blues", "s15era", "mymoe", "gpt2")
PIECES, TOKENS = 4096, 1024


def settings_by(name: str, folder: Path) -> RunSettings:
    """Return the settings of a shape or a preset."""
    if name in SHAPES:
        text = folder / "words.txt"
        text.write_text("the king of the north and the fool of the south\n" * 4000)
        asked = {"shape": name, "text": text, "precision": "float32", "compile": False}
        return settings_of(argparse.Namespace(words=[], **asked), twin=False)
    layers = preset_layers(name)
    train: dict[str, Any] = {"precision": "float32", "device": "cpu", "compile": False}
    over: dict[str, Any] = {"train": train}
    if name != "quickstart":
        model = load_settings(RunSettings, layers).settings.model
        over["tokenizer"] = {"kind": "bpe", "vocab_size": PIECES}
        over["model"] = {"layers": -(-model.layers // 4)}
        train |= {"batch_size": max(TOKENS // model.context, 1), "gradient_accumulation": 1}
    return load_settings(RunSettings, [*layers, Layer("quarter", over)]).settings


def open_by(name: str, folder: Path) -> Session:
    """Return a session in a directory of its own."""
    run = RunDirectory.create(Path(tempfile.mkdtemp(dir=folder)), "run")
    return open_session(settings_by(name, folder), run)


def stepped(session: Session) -> Callable[[], tuple[float, float]]:
    """Return what takes the next step and returns its seconds and its loss."""
    batches, numbers = session.loader().iterate(0), iter(range(1 << 30))

    def step() -> tuple[float, float]:
        begin = time.perf_counter()
        loss = float(session.stepper(next(numbers), next(batches)).metrics.loss)
        return time.perf_counter() - begin, loss

    return step


def dearest(name: str, most: int, folder: Path) -> None:
    """Print a step's dearest items."""
    # Here, as the commits that --beside names may know no profile.
    from coterie.train.events import StepsProfiled
    from coterie.train.monitor.publish import Publisher
    from coterie.train.profile import RECORDED, WARM_UP, StepProfile

    session, seen = open_by(name, folder), []
    step = stepped(session)
    profile = StepProfile(session, Publisher(session.run, [seen.append]))
    for _ in range(WARM_UP + RECORDED):
        with profile.step():
            step()
    (event,) = (each for each in seen if isinstance(each, StepsProfiled))
    print(f"{name}: {1e3 * event.seconds:,.0f} ms a step, recorded")
    for item in event.operations[:most]:
        way = " ←" if item.backward else ""
        print(f"  {item.seconds / event.seconds:6.1%} {1e3 * item.seconds:8.1f} ms "
              f"{item.calls:6,.0f}×  {item.part}{way}: {item.name}", flush=True)  # fmt: skip


def work(name: str) -> None:
    """Take a step for each line read, as `--beside` asks its processes to."""
    with tempfile.TemporaryDirectory() as folder:
        step = stepped(open_by(name, Path(folder)))
        for _ in range(2):
            step()
        for _ in sys.stdin:
            print(*step(), flush=True)


def beside(name: str, trees: dict[str, Path], rounds: int) -> None:
    """Print the medians of two trees, the ratio by pairs, and how far their losses came apart."""
    sides = {
        label: subprocess.Popen(
            [sys.executable, __file__, name, "--work"], env=os.environ | {"PYTHONPATH": str(tree)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tree,
        )
        for label, tree in trees.items()
    }  # fmt: skip
    told: dict[str, list[tuple[float, float]]] = {label: [] for label in trees}
    for _ in range(rounds):
        for label, process in sides.items():
            assert process.stdin is not None
            assert process.stdout is not None
            print("step", file=process.stdin, flush=True)
            seconds, loss = process.stdout.readline().split()
            told[label].append((float(seconds), float(loss)))
    for process in sides.values():
        process.communicate()
    before, now = told.values()
    ratios = [a[0] / b[0] for a, b in zip(before, now, strict=True)]
    apart = max(abs(a[1] / b[1] - 1) for a, b in zip(before, now, strict=True))
    medians = [1e3 * statistics.median(s for s, _ in side) for side in (before, now)]
    print(f"| {name} | {medians[0]:,.0f} | {medians[1]:,.0f} | {statistics.median(ratios):.2f} "
          f"({min(ratios):.2f}–{max(ratios):.2f}) | {apart:.0e} |", flush=True)  # fmt: skip


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="shapes and presets; all if none is named")
    parser.add_argument("--most", type=int, default=10)
    parser.add_argument("--beside", metavar="COMMIT")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    names = asked.names or ["coarse", "fine", *PRESETS]
    if asked.work:
        return work(names[0])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if asked.beside is None:
            for each in names:
                dearest(each, asked.most, folder)
            return None
        here, there = Path(__file__).parents[1], folder / "tree"
        git = ["git", "-C", str(here), "worktree"]
        subprocess.run([*git, "add", "--detach", "-q", str(there), asked.beside], check=True)
        try:
            print(f"| ms a step | {asked.beside} | now | times as fast | losses apart |")
            print("|---|---:|---:|---:|---:|")
            for each in names:
                beside(each, {"before": there, "now": here}, asked.rounds)
        finally:
            subprocess.run([*git, "remove", "--force", str(there)], check=True)


if __name__ == "__main__":
    main()
