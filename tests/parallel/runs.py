"""Small runs for the tests of several processes; imported in them, so functions of a module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import distributed

from coterie.foundation.event_log import read_events
from coterie.foundation.layers import Layer, load_settings
from coterie.foundation.runs import RunDirectory
from coterie.parallel.ranks import ALONE, Several
from coterie.train import RunSettings, machine, train
from coterie.train.events import Evaluated, LoadMeasured, PartsMeasured, Sampled, StepDone

TEXT = "".join(
    f"{n} times {n} is {n * n}, said the {'king' if n % 3 else 'fool'}.\n" for n in range(150)
)


def settings(source: str, *changes: dict[str, Any]) -> RunSettings:
    """Return a run of two layers, one of them routed, on a little text, and what is changed."""
    base = {
        "seed": 7,
        "data": {"source": source, "valid_fraction": 0.1, "split": "tail"},
        "tokenizer": "characters",
        "model": {
            "layers": 2, "width": 16, "context": 16,
            "attention": {"kind": "grouped", "heads": 2},
            "feedforward": {
                "kind": "moe", "experts_per_token": 2, "balance": {"kind": "bias"},
                "experts": [{"mlp": {"kind": "gated", "width": 16}, "count": 4}],
            },
            "blocks": {"dense": {"feedforward": {"kind": "dense"}}, "moe": {}},
            "pattern": ["dense", "moe"],
        },
        "train": {
            "steps": 6, "batch_size": 8, "evaluate_every": 3, "checkpoint_every": 100,
            "optimizer": {"kind": "adamw", "learning_rate": 0.01}, "sample_every": 0,
            "prompts": ["3 times"],
        },
        "sample": {"max_tokens": 8},
    }  # fmt: skip
    layers = [Layer("base", base), *(Layer("test", each) for each in changes)]
    return load_settings(RunSettings, layers).settings


def trained(asked: RunSettings, path: str, resume: bool = False) -> dict[str, Any]:
    """Train in the processes there are; return what the first one's events tell."""
    machine.measure_matmul = lambda precision, seconds=0.0: 1e11
    ranks = Several(torch.device("cpu")) if distributed.is_initialized() else ALONE
    run = RunDirectory(Path(path))
    train(asked, run, preset="test", ranks=ranks, resume=resume)
    if not ranks.is_first:
        return {}
    events = list(read_events(run.events))
    steps = [event for event in events if isinstance(event, StepDone)]
    return {
        "losses": [event.loss for event in steps],
        "norms": [event.gradient_norm for event in steps],
        "auxiliary": [event.auxiliary for event in steps],
        "loads": [event.layers for event in events if isinstance(event, LoadMeasured)],
        "valid": [event.loss for event in events if isinstance(event, Evaluated)],
        "samples": [event.text for event in events if isinstance(event, Sampled)],
        "parts": [event.parts for event in events if isinstance(event, PartsMeasured)],
    }
