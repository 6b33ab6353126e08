"""Metre by reinforcement and its rivals, without constraints: what verse gains, at what cost.

Each method begins with RUN, on several seeds, and writes about as many texts as the others:
policy gradients (grpo, ppo, reinforce), rejection tuning, and DPO in rounds, each on the best and
the worst of eight texts of the model as it is then. Judged are texts on held-out prompts (the same
random streams for all): metrical lines by the checker that was rewarded, and by one that was not:
a line of 10 syllables, or 11, whose words of several syllables all stand with their dictionary's
stress on even places. Beside them what the frozen start makes of the texts (nats per token), what
another model does (--other), words of one syllable, distinct pairs of words, copied words, and the
seconds of training. The last row is how the held-out text itself goes on.

Every run is a process of its own with --threads threads, --parallel of them at a time; what it
found stands in a file of --out, so that runs may be made apart: the table and the curves are of all
files there.

Run: python benchmarks/reinforcement.py RUN --seeds 3 --methods grpo ppo dpo rejection --out found
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from coterie.align.methods import method_of
from coterie.align.reinforce.experience import Collector, Course
from coterie.align.reinforce.method import PromptData, ReinforceMethod
from coterie.align.reinforce.rollout import Writer
from coterie.align.reinforce.watch import figures_of
from coterie.align.rewards import Judge, Sample
from coterie.align.rewards.metre import lines_of
from coterie.api.alignment import align, aligned, made_pairs
from coterie.checkpoint import LoadedModel, load_model
from coterie.checkpoint.layout import list_checkpoints
from coterie.evaluate.scoring import sequence_logprobs
from coterie.foundation.layers import Layer
from coterie.foundation.runs import RunDirectory, runs_root
from coterie.language.verse.lines import words
from coterie.language.verse.phones import syllables
from coterie.language.verse.readings import readings

SHOWN = ("metrical", "other checker", "reference_nats", "other_nats", "monosyllables",
         "distinct_2", "copied")  # fmt: skip
REWARDS = [{"kind": "metre"}, {"kind": "long_words", "weight": 0.1}]
_POLICY = {"train.optimizer.learning_rate": 5e-4, "train.schedule.final": 0.2}
SETTINGS = {
    "grpo": {**_POLICY, "align.kl": 0.02},
    "reinforce": {**_POLICY, "align.kl": 0.02},
    "ppo": {**_POLICY, "align.kl": 0.02, "align.updates": 1, "align.lam": 1.0},
    "rejection": _POLICY,
    "dpo": {"train.optimizer.learning_rate": 5e-4, "align.template": "continuation",
            "align.likelihood": 1.0, "train.epochs": 2, "align.valid_fraction": 0.0},
}  # fmt: skip
"""What suits each: those of GRPO were searched, of the others a rate or two was tried."""
_HELD_OUT_SEED = 1 << 41


def stands(line: str) -> bool:
    """Whether a line keeps its stresses by the dictionary alone; no licence, nothing learned."""
    at = 0
    for word in words(line):
        known = readings(word.key)[0]
        count = syllables(known.phones)
        if count > 1 and any(
            stress == "1" and (at + place) % 2 == 0
            for place, stress in enumerate(known.stresses.replace("-", ""))
        ):
            return False
        at += count
    return at in (10, 11)


def other(samples: list[Sample]) -> float:
    found = [lines_of(each.lines) for each in samples]
    return sum(bool(lines) and stands(lines[0]) for lines in found) / len(found)


class Bench:
    """Judges checkpoints on the held-out prompts of a run."""

    def __init__(self, base: LoadedModel, texts: int) -> None:
        settings = aligned("grpo", base, {"rewards": REWARDS}, [])
        method = method_of(settings, None)
        assert isinstance(method, ReinforceMethod)
        _, data = method.prepare(settings, lambda sentence: None)
        assert isinstance(data, PromptData)
        self.method, self.data, self.texts = method, data, texts

    def __call__(self, checkpoint: str | Path) -> dict:
        """Return the figures of a checkpoint's texts, and the texts, each behind its prompt."""
        own, policy = self.method.alignment, load_model(checkpoint).decoder
        writer = Writer(policy, self.data.tokenizer, own.rollout, 256)
        judge = Judge(own.rewards, self.data.corpus)
        reference = self.method.reference()
        collector = Collector(own, policy, reference, writer, judge, contextlib.nullcontext)
        course = Course(own.rollout.max_tokens, 1)
        prompts = self.data.valid[: self.texts]
        _, _, samples, scores = collector.judged(prompts, 1, _HELD_OUT_SEED, course)
        return figures_of(samples, self.data.corpus, scores) | _further(samples)

    def human(self) -> dict:
        """Return the figures of how the text itself goes on."""
        samples = self.data.human[: self.texts]
        return figures_of(samples, self.data.corpus, None) | _further(samples)


def _further(samples: list[Sample]) -> dict:
    return {"other checker": other(samples), "texts": [[s.prompt, s.text] for s in samples]}


def with_fluency(figures: dict, another: LoadedModel) -> dict:
    """Return figures with what another model makes of the texts, nats per token."""
    rows, starts = [], []
    for prompt, text in figures["texts"]:
        asked = another.tokenizer.encode(prompt)
        rows.append([*asked, *another.tokenizer.encode(text)])
        starts.append(len(asked) - 1)
    read = sequence_logprobs(another.decoder, rows)
    tails = [-row[start:] for row, start in zip(read, starts, strict=True)]
    return {**figures, "other_nats": float(torch.cat(tails).mean())}


def seconds_of(run: RunDirectory) -> dict[int, float]:
    """Return the seconds from a run's beginning to each of its steps."""
    rows = [json.loads(line) for line in run.events.read_text().splitlines()]
    began = next(row["time"] for row in rows if row["kind"] == "run_started")
    return {row["step"]: row["time"] - began for row in rows if row["kind"] == "step"}


def trained(kind: str, base: str, name: str, given: argparse.Namespace, **settings) -> RunDirectory:
    """Train a method and return its run."""
    every = max(given.steps // given.points, 1)
    usual = {
        "train.evaluate_every": 0, "train.sample_every": 0, "train.precision": "float32",
        "train.checkpoint_every": every, "train.keep": given.points + 1, "train.device": "cpu",
        **SETTINGS[kind], **settings, **json.loads(given.settings),
    }  # fmt: skip
    data = usual.pop("data", "")
    align(kind, base, data, settings=usual, name=name)
    return RunDirectory(runs_root() / name)


def policy(kind: str, seed: int, given: argparse.Namespace) -> list[tuple[float, float, Path]]:
    """Train by a method that writes itself; return checkpoints, with share done and seconds."""
    name = f"{Path(given.run).name}-{kind}-{seed}"
    run = trained(kind, given.run, name, given, seed=seed,
                  **{"align.rewards": REWARDS, "train.steps": given.steps})  # fmt: skip
    at = seconds_of(run)
    kept = [(int(path.name[-8:]), path) for path in list_checkpoints(run.checkpoints)]
    return [(step / given.steps, at[step], path) for step, path in kept]


def preferences(seed: int, given: argparse.Namespace) -> list[tuple[float, float, Path]]:
    """Learn pairs in rounds, each of the model as it is then; return the same."""
    base, spent, found = given.run, 0.0, []
    count = given.steps * 64 // (8 * given.rounds)  # texts as many as GRPO writes
    for number in range(given.rounds):
        began = time.perf_counter()
        name = f"{Path(given.run).name}-dpo-{seed}-{number}"
        file = Path(given.out) / f"{name}.jsonl"
        layer = Layer("pairs", {"seed": seed * 100 + number, "align": {"prompts_per_rollout": 32}})
        settings = aligned("rejection", load_model(base), {"rewards": REWARDS}, [layer])
        rows = list(made_pairs(settings, count))
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        run = trained("dpo", base, name, given, seed=seed, data=str(file),
                      **{"train.checkpoint_every": 0})  # fmt: skip
        spent += time.perf_counter() - began
        base = str(list_checkpoints(run.checkpoints)[-1])
        found.append(((number + 1) / given.rounds, spent, Path(base)))
    return found


def one(kind: str, seed: int, given: argparse.Namespace) -> None:
    """Make a run and write down what it found."""
    torch.set_num_threads(given.threads)
    began, cpu = time.perf_counter(), time.process_time()
    points = preferences(seed, given) if kind == "dpo" else policy(kind, seed, given)
    took = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
    bench = Bench(load_model(given.run), given.texts)
    curve = [{"share": share, "at": at, **bench(path)} for share, at, path in points]
    found = {"method": kind, "seed": seed, "steps": given.steps, **took, "curve": curve}
    (Path(given.out) / f"{kind}-{seed}.json").write_text(json.dumps(found, indent=1))


def apart(tasks: list[tuple[str, int]], given: argparse.Namespace) -> None:
    """Make runs in processes of their own, several at a time."""
    rest, running = list(tasks), dict[str, subprocess.Popen[bytes]]()
    own = {**os.environ, "OMP_NUM_THREADS": str(given.threads)}
    while rest or running:
        while rest and len(running) < given.parallel:
            kind, seed = rest.pop(0)
            words_ = [sys.executable, __file__, *sys.argv[1:], "--parallel", "0", "--methods",
                      kind, "--seeds", "1", "--seeds-from", str(seed)]  # fmt: skip
            log = (Path(given.out) / f"{kind}-{seed}.log").open("wb")
            running[f"{kind}-{seed}"] = subprocess.Popen(words_, env=own, stdout=log, stderr=log)
        time.sleep(0.5)
        for name in [name for name, child in running.items() if child.poll() is not None]:
            code = running.pop(name).returncode
            print(f"{name}: {'done' if code == 0 else f'exit {code}, see {name}.log'}", flush=True)


def table(folder: Path, another: LoadedModel | None) -> None:
    """Print a row of each method, means over seeds with their range, from the files of a folder."""
    ends = json.loads((folder / "ends.json").read_text())
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("*-[0-9]*.json"))]
    print("| method | seeds | seconds of the processor | " + " | ".join(SHOWN) + " |")
    print("|---|---:|---:|" + "---:|" * len(SHOWN))

    def row(name: str, of: list[dict], seconds: str = "–") -> None:
        cells = []
        of = of if another is None else [with_fluency(each, another) for each in of]
        for figure in SHOWN:
            values = [each[figure] for each in of if figure in each]
            if not values:
                cells.append("–")
                continue
            spread = f" ({min(values):.3f}–{max(values):.3f})" if len(values) > 1 else ""
            cells.append(f"{statistics.fmean(values):.3f}{spread}")
        print(f"| {name} | {len(of)} | {seconds} | " + " | ".join(cells) + " |")

    row("start", [ends["start"]])
    for kind in SETTINGS:
        own = [run for run in runs if run["method"] == kind]
        if own:
            seconds = f"{statistics.fmean(run['cpu_seconds'] for run in own):.0f}"
            row(kind, [run["curve"][-1] for run in own], seconds)
    row("the text itself", [ends["human"]])
    picture(folder, ends, runs)


def picture(folder: Path, ends: dict, runs: list[dict]) -> None:
    """Draw metrical lines over the share of all texts written so far, a line of each run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    colours = dict(zip(SETTINGS, ("#1f5f9e", "#5b636d", "#c2540d", "#2e7d4f", "#8a4fa3"),
                       strict=True))  # fmt: skip
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), sharex=True, layout="constrained")
    for place, (name, title) in enumerate(
        (("metrical", "metrical lines (rewarded)"), ("other checker", "by another checker"))
    ):
        panel = axes[place]
        for run in runs:
            start = {"share": 0.0, **ends["start"]}
            points = [start, *run["curve"]]
            label = run["method"] if run["seed"] == min(
                r["seed"] for r in runs if r["method"] == run["method"]) else None  # fmt: skip
            panel.plot([p["share"] for p in points], [p[name] for p in points], marker="o", ms=3,
                       color=colours[run["method"]], label=label, lw=1.2)  # fmt: skip
        panel.axhline(ends["human"][name], color="#1d2126", lw=0.8, ls=":")
        panel.set(title=title, xlabel="share of the texts written", ylim=(0, 1))
        panel.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.savefig(folder / "curves.svg", metadata={"Date": None})
    figure.savefig(folder / "curves.png", dpi=120)
    print(f"Curves: {folder / 'curves.svg'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--methods", nargs="*", default=["grpo"], choices=list(SETTINGS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--seeds-from", type=int, default=0)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--rounds", type=int, default=6, help="of DPO")
    parser.add_argument("--points", type=int, default=4, help="of each curve")
    parser.add_argument("--texts", type=int, default=150)
    parser.add_argument("--other", help="a run of another model, for fluency")
    parser.add_argument("--settings", default="{}", help="JSON of further settings")
    parser.add_argument("--parallel", type=int, default=1, help="runs at a time")
    parser.add_argument("--threads", type=int, default=2, help="of each run")
    parser.add_argument("--out", default="reinforcement", help="folder of what was found")
    given = parser.parse_args()
    folder = Path(given.out)
    folder.mkdir(parents=True, exist_ok=True)
    seeds = range(given.seeds_from, given.seeds_from + given.seeds)
    tasks = [(kind, seed) for seed in seeds for kind in given.methods]
    if given.parallel == 0:
        for kind, seed in tasks:
            one(kind, seed, given)
        return
    apart(tasks, given)
    if not (folder / "ends.json").exists():
        bench = Bench(load_model(given.run), given.texts)
        ends = {"start": bench(given.run), "human": bench.human()}
        (folder / "ends.json").write_text(json.dumps(ends, indent=1))
    table(folder, load_model(given.other) if given.other else None)


if __name__ == "__main__":
    main()
