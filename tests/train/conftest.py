"""A run small enough to train in a moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from coterie.batch import TokenBatch
from coterie.foundation.layers import Layer, load_settings
from coterie.foundation.runs import RunDirectory
from coterie.train import RunSettings, machine

TEXT = "".join(
    f"{n} times {n} is {n * n}, said the {'king' if n % 3 else 'fool'}.\n" for n in range(150)
)


@pytest.fixture(autouse=True)
def known_machine(monkeypatch):
    """Spare each test the measurement of the machine."""
    monkeypatch.setattr(machine, "measure_matmul", lambda precision, seconds=0.0: 1e11)


@pytest.fixture
def tiny(tmp_path) -> Callable[..., RunSettings]:
    """Return a maker of settings: two layers, one of them routed, on a little text."""
    source = tmp_path / "text.txt"
    source.write_text(TEXT, encoding="utf-8")

    def make(**changes: Any) -> RunSettings:
        base = {
            "seed": 7,
            "data": {"source": str(source), "valid_fraction": 0.1, "split": "tail"},
            "tokenizer": "characters",
            "model": {
                "layers": 2,
                "width": 16,
                "context": 16,
                "attention": {"kind": "grouped", "heads": 2},
                "feedforward": {
                    "kind": "moe",
                    "experts": [{"mlp": {"kind": "gated", "width": 16}, "count": 4}],
                    "experts_per_token": 2,
                    "balance": {"kind": "bias"},
                },
            },
            "train": {
                "steps": 6,
                "batch_size": 4,
                "optimizer": {"kind": "adamw", "learning_rate": 0.01},
                "evaluate_every": 3,
                "checkpoint_every": 2,
                "keep": 10,
                "prompts": ["3 times"],
            },
            "sample": {"max_tokens": 8},
        }
        return load_settings(RunSettings, [Layer("base", base), Layer("test", changes)]).settings

    return make


@pytest.fixture
def new_run(tmp_path) -> Callable[[str], RunDirectory]:
    """Return a maker of run directories."""

    def make(name: str) -> RunDirectory:
        return RunDirectory.create(Path(tmp_path) / "runs", name)

    return make


@pytest.fixture
def batch_of() -> Callable[[RunSettings], TokenBatch]:
    """Return a maker of a run's batches, of tokens of no meaning."""

    def make(run: RunSettings) -> TokenBatch:
        drawn = torch.Generator().manual_seed(3)
        size = (run.train.batch_size, run.model.context + 1)
        tokens = torch.randint(run.model.known_vocab_size(), size, generator=drawn)
        return TokenBatch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())

    return make
