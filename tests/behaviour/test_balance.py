"""Balance by selection bias: even load without an auxiliary loss, moved by training steps alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from coterie.foundation.events import LoadMeasured, StepDone, read_events
from coterie.foundation.runs import RunDirectory
from coterie.train import RunSettings, machine, train

LINE = "all the world is a stage and all the men and women merely players"
WORDS = LINE.split()


@pytest.fixture(autouse=True)
def known_machine(monkeypatch):
    monkeypatch.setattr(machine, "measure_matmul", lambda precision, seconds=0.0: 1e11)


def trained(folder: Path, name: str, balance: dict[str, object]) -> RunDirectory:
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
                    "experts": [{"body": {"kind": "swiglu", "width": 8}, "count": 4}],
                    "experts_per_token": 1,
                    "router": {"score": "sigmoid"},
                    "balance": balance,
                },
            },
            "train": {
                "steps": 120,
                "batch_size": 8,
                "optimizer": {"kind": "adamw", "learning_rate": 0.01},
                "evaluate_every": 0,
                "checkpoint_every": 0,
                "sample_every": 0,
                "load_every": 60,
            },
        }
    )
    run = RunDirectory.create(folder, name)
    train(settings, run, preset="tiny")
    return run


def worst_imbalance(run: RunDirectory) -> float:
    """Return the largest max/mean over layers, load summed over the last half of training."""
    loads = [event for event in read_events(run.events) if isinstance(event, LoadMeasured)]
    assert loads[-1].steps == 60
    for layer in loads[-1].layers:
        assert sum(layer.load) == 60 * 8 * 32  # every token went somewhere, once
    return max(max(layer.load) * len(layer.load) / sum(layer.load) for layer in loads[-1].layers)


def test_bias_balancing_evens_the_load_while_no_auxiliary_loss_is_at_work(tmp_path):
    balanced = trained(tmp_path, "bias", {"kind": "bias", "rate": 0.02, "rule": "proportional"})
    left_alone = trained(tmp_path, "none", {"kind": "none"})
    assert worst_imbalance(balanced) < 1.2
    assert worst_imbalance(left_alone) > 1.3
    for event in read_events(balanced.events):
        if isinstance(event, StepDone):
            assert event.auxiliary["balance"] == 0.0
