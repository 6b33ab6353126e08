"""Routing in whole runs: balance without an auxiliary loss; chance, room and drops on record."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from coterie.foundation.event_log import read_events
from coterie.foundation.runs import RunDirectory
from coterie.train import RunSettings, machine, train
from coterie.train.events import LoadMeasured, StepDone

LINE = "all the world is a stage and all the men and women merely players"
WORDS = LINE.split()


@pytest.fixture(autouse=True)
def known_machine(monkeypatch):
    monkeypatch.setattr(machine, "measure_matmul", lambda precision, seconds=0.0: 1e11)


def trained(
    folder: Path, name: str, routing: dict[str, Any], steps: int = 80, **changes: Any
) -> RunDirectory:
    source = folder / "text.txt"
    lines = (" ".join(WORDS[(n * n + k) % len(WORDS)] for k in range(9)) for n in range(120))
    source.write_text("\n".join(lines), encoding="utf-8")
    settings = RunSettings.model_validate(
        {
            "data": {"source": str(source), "split": "tail"},
            "tokenizer": "characters",
            "model": {
                "layers": 2,
                "width": 16,
                "context": 32,
                "attention": {"kind": "grouped", "heads": 2},
                "feedforward": {
                    "kind": "moe",
                    "experts": [{"mlp": {"kind": "gated", "width": 8}, "count": 4}],
                    "experts_per_token": 1,
                    "router": {"score": "sigmoid"},
                    **routing,
                },
            },
            "train": {
                "steps": steps,
                "batch_size": 4,
                "optimizer": {"kind": "adamw", "learning_rate": 0.01},
                "evaluate_every": 0,
                "checkpoint_every": 0,
                "sample_every": 0,
                "load_every": 40,
                **changes,
            },
        }
    )
    run = RunDirectory.create(folder, name)
    train(settings, run, preset="tiny")
    return run


def worst_imbalance(run: RunDirectory) -> float:
    """Return the largest max/mean over layers, load summed over the last half of training."""
    loads = [event for event in read_events(run.events) if isinstance(event, LoadMeasured)]
    assert loads[-1].steps == 40
    for layer in loads[-1].layers:
        assert sum(layer.load) == 40 * 4 * 32  # every token went somewhere, once
    return max(max(layer.load) * len(layer.load) / sum(layer.load) for layer in loads[-1].layers)


def test_bias_balancing_evens_the_load_while_no_auxiliary_loss_is_at_work(tmp_path):
    bias = {"kind": "bias", "rate": 0.02, "rule": "proportional"}
    balanced = trained(tmp_path, "bias", {"balance": bias})
    left_alone = trained(tmp_path, "none", {"balance": {"kind": "none"}})
    assert worst_imbalance(balanced) < 1.2
    assert worst_imbalance(left_alone) > 1.3
    for event in read_events(balanced.events):
        if isinstance(event, StepDone):
            assert event.auxiliary["balance"] == 0.0


EVERYTHING = {
    "experts_per_token": 2,
    "capacity_factor": 0.8,
    "expert_dropout": 0.1,
    "router": {"noise": "learned", "select": {"kind": "dynamic", "mass": 0.6, "entropy": 0.05}},
    "balance": {"kind": "auxiliary", "coefficient": 0.02, "scope": "global"},
}


def test_a_run_with_every_kind_of_chance_is_repeated_exactly_and_its_drops_are_on_record(tmp_path):
    run = trained(tmp_path, "one", EVERYTHING, steps=6, gradient_accumulation=2)
    again = trained(tmp_path, "two", EVERYTHING, steps=6, gradient_accumulation=2)
    recomputed = trained(
        tmp_path, "three", EVERYTHING, steps=6, gradient_accumulation=2,
        activation_checkpointing=True,
    )  # fmt: skip
    events, others = list(read_events(run.events)), list(read_events(again.events))
    steps = [event for event in events if isinstance(event, StepDone)]
    assert [each.loss for each in steps] == [
        event.loss for event in others if isinstance(event, StepDone)
    ]
    third = [event for event in read_events(recomputed.events) if isinstance(event, StepDone)]
    assert [each.loss for each in third] == pytest.approx([each.loss for each in steps], rel=1e-4)
    for step in steps:
        assert 0 < step.auxiliary["entropy"] <= 0.05 * math.log(4) + 1e-6
        assert step.auxiliary["balance"] >= 0.02 * 0.9
    (load,) = (event for event in events if isinstance(event, LoadMeasured))
    tokens = 6 * 4 * 32
    for layer in load.layers:
        assert tokens <= sum(layer.load) <= 2 * tokens
        # Each micro-batch of 2 · 32 tokens gives each of 4 experts ⌈0.8 · 64 · 2 / 4⌉ = 26 places.
        assert sum(layer.load) - layer.dropped <= 12 * 4 * 26
        assert layer.dropped > 0
