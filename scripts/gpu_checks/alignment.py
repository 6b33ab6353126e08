"""Alignment on the device through the command line: supervised, preferences, reinforcement."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from gpu_checks.registry import Bench, Cases, check
from gpu_checks.training import Shell, ended, settings_file

_WORDS = ["tone", "rain", "loud", "dish", "sheen", "trout"]


def rows_file(folder: Path, kind: str, count: int = 200) -> str:
    """Write rows in which a word is asked for and answered; return the file's path."""
    path = folder / f"{kind}.jsonl"
    rows = []
    for number in range(count):
        word, other = _WORDS[number % len(_WORDS)], _WORDS[(number + 1) % len(_WORDS)]
        answers = {"sft": {"completion": word}, "dpo": {"chosen": word, "rejected": other}}
        rows.append(json.dumps({"prompt": f"{word} ", **answers[kind]}))
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return str(path)


def told(run: Path) -> dict[str, Any]:
    """Return what a run's record says: ends of losses and rewards, rates, metrics of the end."""
    read = [json.loads(line) for line in (run / "events.jsonl").open(encoding="utf-8")]
    steps = [event for event in read if event.get("kind") == "step"]
    losses = [step["loss"] for step in steps]
    assert all(map(math.isfinite, losses)), losses
    rates = sorted(step.get("tokens_per_second") or 0.0 for step in steps[3:])
    found = {
        "steps": len(steps),
        "first": losses[0],
        "last": losses[-1],
        "tokens/s": round(rates[len(rates) // 2]) if rates else None,
        "others": {key: value for key, value in steps[-1]["auxiliary"].items() if "/" in key},
    }
    written = [event for event in read if event.get("kind") == "rollout"]
    if written:
        rewards = [event["figures"]["reward"] for event in written]
        speeds = sorted(event["tokens"] / event["seconds"] for event in written)
        found["reward"] = [sum(part) / len(part) for part in (rewards[:5], rewards[-5:])]
        found["written tokens/s"] = round(speeds[len(speeds) // 2])
    return found


@check("align.methods", "train", limit=150)
def methods(bench: Bench) -> dict[str, Any]:
    """Tune one small run by each method, and resume the reinforced one."""
    shell, cases = Shell(bench, "align"), Cases(bench)
    file = settings_file(bench, shell, "align", dropout=0.0, device=bench.device, log_every=1,
                         steps=10 if bench.tiny else 100)  # fmt: skip
    shell("train", file, "--name", "base")
    steps = f"train.steps={3 if bench.tiny else 30}"
    rows = rows_file(shell.folder, "sft")
    written = ("base", "--reward", "pattern:regex=e.*e.*e", f"align.prompts={rows}",
               "align.rollout.max_tokens=24")  # fmt: skip
    words = {
        "sft": ("sft", "base", rows, "align.template=plain"),
        "lora": ("sft", "base", rows, "align.template=plain", "--lora", "4"),
        "dpo": ("dpo", "base", rows_file(shell.folder, "dpo"), "align.template=plain"),
        "grpo": ("grpo", *written),
        "ppo": ("ppo", *written),
    }  # fmt: skip
    started = {}
    for name, said in bench.some(words.items(), 4):
        line = ("align", *said, steps, "train.log_every=1", "--name", name)
        started[name] = shell.start(*line), line
    for name, (process, line) in started.items():
        with cases(name):
            ended(process, line)
            cases.figures[name] = told(shell.runs / name)
    with cases("verify-resume"):
        cases.figures["verify-resume"] = shell("verify-resume", "grpo")[-200:]
    return cases.result()
