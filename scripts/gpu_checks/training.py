"""The command line end to end: train in each precision, interrupt, resume, generate, move devices.

Every command is a process of its own, as a user would start it. Deterministic runs go through the
same entry point after `torch.use_deterministic_algorithms`, which the package leaves alone.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

from gpu_checks import names
from gpu_checks.registry import Bench, Cases, check
from gpu_checks.speed import text_of

_STRICT = (
    "import torch; torch.use_deterministic_algorithms(True, warn_only=True); "
    "from coterie.cli.app import main; raise SystemExit(main())"
)
PRESETS = {  # the small twins: Muon and characters; AdamW, BPE and noisy experts
    "bfloat16": "quickstart", "float32": "s15era", "float16": "yinggem",
}  # fmt: skip


class Shell:
    """Runs the command line in a folder of its own."""

    def __init__(self, bench: Bench, folder: str) -> None:
        self.bench, self.folder = bench, bench.folder / folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.runs = self.folder / "runs"

    def start(self, *words: str, strict: bool = False, hide: bool = False) -> subprocess.Popen[str]:
        """Start a command; `hide` keeps the GPU from it."""
        entry = ["-c", _STRICT] if strict else ["-m", "coterie"]
        env = os.environ | {
            "COTERIE_RUNS": str(self.runs), "COTERIE_CACHE": str(self.bench.folder / "cache"),
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "NO_COLOR": "1", "TERM": "dumb",
        } | ({"CUDA_VISIBLE_DEVICES": ""} if hide else {})  # fmt: skip
        return subprocess.Popen(
            [sys.executable, *entry, *words], env=env, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, cwd=self.folder,
        )  # fmt: skip

    def __call__(self, *words: str, **how: bool) -> str:
        """Run a command to its end and return what it printed."""
        return ended(self.start(*words, **how), words)

    def stop_at(self, run: str, step: int, *words: str, **how: bool) -> None:
        """Start a command and interrupt it once its record tells of a step."""
        process = self.start(*words, **how)
        record = self.runs / run / "events.jsonl"
        while process.poll() is None:
            known = record.read_text(encoding="utf-8") if record.exists() else ""
            if any('"kind":"step"' in line.replace(" ", "") and f'"step":{step}' in
                   line.replace(" ", "") for line in known.splitlines()):  # fmt: skip
                process.send_signal(signal.SIGINT)
                break
            time.sleep(0.02)
        said = "".join(process.communicate())
        assert process.returncode == 130, f"interrupted, it ended with {process.returncode}: {said}"


def ended(process: subprocess.Popen[str], words: tuple[str, ...]) -> str:
    """Return what a process printed, which must end well."""
    out, said = process.communicate()
    if process.returncode:
        raise AssertionError(f"coterie {' '.join(words)} ended with {process.returncode}: "
                             f"{said.strip()[-500:]}")  # fmt: skip
    print(said, flush=True)
    return out


def settings_file(bench: Bench, shell: Shell, name: str, dropout: float = 0.1, **train: Any) -> str:
    """Write the settings of a small run with experts and dropout; return the file's path."""
    model = {
        "layers": 2, "width": 64, "context": 64, "dropout": dropout,
        "attention": {"kind": "grouped", "heads": 4, "kv_heads": 2},
        "feedforward": names.moe(8, 64, 2, balance={"kind": "bias"}),
    }  # fmt: skip
    said = names.run_settings(text_of(bench), model, **{
        "steps": 60, "batch_size": 8, "device": "auto", "checkpoint_every": 20, "keep": 9,
        "optimizer": {"kind": "muon", "learning_rate": 0.01}, **train,
    })  # fmt: skip
    path = shell.folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(said), encoding="utf-8")
    return str(path)


def losses(run: Path) -> list[float]:
    """Return the training losses that a run's record tells of."""
    events = map(json.loads, (run / "events.jsonl").read_text(encoding="utf-8").splitlines())
    return [event["loss"] for event in events if event.get("kind") == "step"]


def newest(run: Path) -> dict[str, torch.Tensor]:
    """Return all tensors of a run's newest checkpoint."""
    folder = sorted((run / "checkpoints").iterdir())[-1]
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= {f"{path.stem}/{name}": each for name, each in load_file(path).items()}
    return found


@check("train.presets", "train", limit=150)
def presets(bench: Bench) -> dict[str, Any]:
    """Train small presets in each precision side by side, then write, measure and report."""
    shell, cases = Shell(bench, "presets"), Cases(bench)
    steps, chosen = (6, ["float32"]) if bench.tiny else (60, list(PRESETS))
    started = {}
    for precision in chosen:
        words = ["train", PRESETS[precision], "scale=tiny", f"train.device={bench.device}",
                 f"train.precision={precision}", f"train.steps={steps}", "--name", precision,
                 "train.prompts=['the ']", "sample.max_tokens=20"]  # fmt: skip
        if bench.tiny:
            words += [f"data.source={text_of(bench)}", "data.split=tail", "tokenizer=characters"]
        started[precision] = (shell.start(*words, "--json"), tuple(words))
    for precision, (process, words) in started.items():
        with cases(precision):
            result = json.loads(ended(process, words))
            told = losses(shell.runs / precision)
            assert math.isfinite(result["validation_loss"]), "the validation loss is not finite"
            assert min(told[-3:]) < told[0], f"the loss went from {told[0]} to {told[-1]}"
            cases.figures[precision] = {
                "preset": PRESETS[precision], "first loss": told[0], "last loss": told[-1],
                "validation": result["validation_loss"], "s": round(result["seconds"], 2),
            }  # fmt: skip
    run = chosen[0]
    with cases("generate"):
        text = shell("generate", run, "the king", "temperature=0", "max_tokens=30", "--json",
                     "--device", bench.device)  # fmt: skip
        cases.figures["generate"] = json.loads(text) and "written"
    with cases("evaluate on the device and on the CPU"):
        both = [json.loads(shell("evaluate", run, "--json", "--device", device))
                for device in (bench.device, "cpu")]  # fmt: skip
        far = abs(both[0]["nats_per_token"] - both[1]["nats_per_token"])
        assert far < 1e-3, f"the losses differ by {far:.1e} nats"
        cases.figures["evaluate"] = {"nats": both[0]["nats_per_token"], "off the CPU's by": far}
    with cases("report"):
        shell("report", run, "--plots", str(shell.folder / "plots"))
        cases.figures["report"] = sorted(p.name for p in (shell.folder / "plots").iterdir())
    return cases.result()


def _resumed(bench: Bench, cases: Cases, shell: Shell, precision: str, strict: bool) -> None:
    """Compare two whole runs and one that was interrupted, bit by bit."""
    name = f"{precision}{' deterministic' if strict else ''}"
    prefix = name.replace(" ", "-")
    with cases(name):
        steps = 12 if bench.tiny else 60
        file = settings_file(bench, shell, prefix, device=bench.device, precision=precision,
                             steps=steps, log_every=1)  # fmt: skip
        whole = [shell.start("train", file, "--name", f"{prefix}-{n}", strict=strict)
                 for n in ("one", "two")]  # fmt: skip
        shell.stop_at(f"{prefix}-cut", steps // 3, "train", file, "--name", f"{prefix}-cut",
                      strict=strict)  # fmt: skip
        reached = len(losses(shell.runs / f"{prefix}-cut"))
        assert reached < steps, "the run had ended before it was interrupted"
        shell("train", "--resume", f"{prefix}-cut", strict=strict)
        for process in whole:
            ended(process, ("train", file))
        one, two, cut = (shell.runs / f"{prefix}-{n}" for n in ("one", "two", "cut"))
        figures = {
            "interrupted after": reached,
            "repeated: unequal tensors": _unequal(newest(one), newest(two)),
            "resumed: unequal tensors": _unequal(newest(one), newest(cut)),
            "resumed: losses equal": losses(one) == losses(cut),
        }
        cases.figures[name] = figures
        if strict or not bench.cuda:
            assert figures["resumed: losses equal"], f"{name}: {figures}"
            assert figures["resumed: unequal tensors"] == "0 of " + str(len(newest(one))), figures


def _unequal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> str:
    assert set(one) == set(other), f"tensors of {sorted(set(one) ^ set(other))[:4]}"
    unequal = [name for name in one if not torch.equal(one[name], other[name])]
    return f"{len(unequal)} of {len(one)}" + (f", such as {unequal[:4]}" if unequal else "")


@check("train.resume", "train", limit=150)
def resume(bench: Bench) -> dict[str, Any]:
    """An interrupted run ends where an uninterrupted one does; bit-equal if deterministic."""
    shell, cases = Shell(bench, "resume"), Cases(bench)
    ways = [("bfloat16", True), ("float32", False), ("float16", True)]
    for precision, strict in [("float32", False)] if bench.tiny else ways:
        _resumed(bench, cases, shell, precision, strict)
    return cases.result()


@check("train.devices", "train", limit=120)
def devices(bench: Bench) -> dict[str, Any]:
    """The CPU's losses in float32, and runs that go on on the other device."""
    shell, cases = Shell(bench, "devices"), Cases(bench)
    steps = 10 if bench.tiny else 40
    said = {"device": "auto", "precision": "float32", "steps": steps}
    file = settings_file(bench, shell, "moved", dropout=0.0, **said)  # devices draw differently
    here, there = "begun-on-device", "begun-on-cpu"
    with cases("interrupt both"):
        shell.stop_at(here, steps // 2, "train", file, "--name", here)
        shell.stop_at(there, steps // 2, "train", file, "--name", there, hide=True)
    with cases("losses near the CPU's"):
        pairs = list(zip(losses(shell.runs / here), losses(shell.runs / there), strict=False))
        far = [abs(one - other) for one, other in pairs]
        cases.figures["losses off by"] = {"the first": far[0], "the worst of 5": max(far[:5])}
        assert far[0] < 1e-4, f"the first loss is off by {far[0]:.1e}"
    for run, hide in ((here, True), (there, False)):
        with cases(f"{run}, resumed on the other"):
            shell("train", "--resume", run, hide=hide)
            told = losses(shell.runs / run)
            assert len(told) == steps, f"{len(told)} steps of {steps}"
            cases.figures[run] = {"first": told[0], "last": told[-1]}
    with cases("the same greedy text on both"):
        texts = [shell("generate", here, "nosh", "temperature=0", "max_tokens=20", hide=hide)
                 for hide in (False, True)]  # fmt: skip
        assert texts[0] == texts[1], texts
    return cases.result()


OPTIONS: dict[str, tuple[str, ...]] = {
    "health": ("train.health_every=5",),
    "curriculum": (
        "data.curriculum.length={kind: steps, values: [16, 32, 64], begins: [0, 20, 40]}",
        "train.health_every=5",
    ),
    "saving": ("train.ema=0.99", "train.keep_every=20", "train.keep=1"),
    "selective": ("train.activation_checkpointing=selective",),
    "recomputed": ("train.activation_checkpointing=true",),
    "dynamic": ("train.dynamic_batch=true",),
    "adamw8bit": ("train.optimizer={kind: adamw8bit, learning_rate: 0.003}",),
    "adafactor": ("train.optimizer={kind: adafactor, learning_rate: 0.003}",),
    "speed": ("mode=speed",),
    "memory": ("mode=memory",),
    "profile": ("--memory-profile", "--report-interval", "20"),
}
"""Settings of runs that a graph must not change; a look at the memory records none."""


@check("train.options", "train", limit=200)
def options(bench: Bench) -> dict[str, Any]:
    """Runs with each option lose the same recorded as kernel by kernel, and keep their files."""
    shell, cases = Shell(bench, "options"), Cases(bench)
    file = settings_file(bench, shell, "options", dropout=0.0, device=bench.device, log_every=1,
                         precision="float32", steps=60, optimizer={"kind": "adamw"})  # fmt: skip
    wanted = bench.some(OPTIONS.items(), 2)
    for many in range(0, len(wanted), 4):
        started = {}
        for option, words in wanted[many : many + 4]:
            for graph in (True, False):
                name = f"{option}-{'recorded' if graph else 'plain'}"
                # Of the modes, what is said otherwise here stays as it is here.
                said = ("train", file, *words, f"train.cuda_graph={str(graph).lower()}")
                started[name] = shell.start(*said, "--name", name, strict=True), said
        for option, _ in wanted[many : many + 4]:
            with cases(option):
                for graph in ("recorded", "plain"):
                    ended(*started[f"{option}-{graph}"])
                cases.figures[option] = _same(shell, option)
    return cases.result()


def _same(shell: Shell, option: str) -> dict[str, Any]:
    """Compare a run with its twin; return how far their losses and weights are apart."""
    runs = [shell.runs / f"{option}-{way}" for way in ("recorded", "plain")]
    one, other = (losses(run) for run in runs)
    events = [json.loads(line) for line in (runs[0] / "events.jsonl").read_text().splitlines()]
    kinds = sorted({event["kind"] for event in events})
    figures = {
        "steps": len(one), "apart": max(abs(a - b) for a, b in zip(one, other, strict=True)),
        "last": one[-1], "unequal tensors": _unequal(newest(runs[0]), newest(runs[1])),
        "events": kinds, "files": sorted(p.name for p in (runs[0] / "profile").glob("*")),
        "checkpoints": sorted(p.name for p in (runs[0] / "checkpoints").iterdir()),
    }  # fmt: skip
    assert figures["apart"] < 1e-3, figures
    return figures


@check("train.finder", "train", limit=90)
def finder(bench: Bench) -> dict[str, Any]:
    """The largest micro-batch that fits, told by real steps; and resume proven by the command."""
    shell, cases = Shell(bench, "finder"), Cases(bench)
    file = settings_file(bench, shell, "finder", device=bench.device, steps=20, log_every=1)
    with cases("verify-resume"):
        shell("train", file, "--name", "proof")
        cases.figures["verify-resume"] = shell("verify-resume", "proof")[-300:]
    with cases("tune --micro-batch"):
        words = (file, "--memory", "1")
        if bench.cuda:
            words = ("s15era", f"data.source={text_of(bench)}", "data.split=tail",
                     "tokenizer=characters", "train.batch_size=256")  # fmt: skip
        said = shell("tune", *words, "--micro-batch", "--json")
        cases.figures["tune --micro-batch"] = json.loads(said)
    return cases.result()
