# pyright: basic, reportOptionalMemberAccess=false, reportOptionalSubscript=false
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalOperand=false
"""A small run that alignment begins with, and rows."""

from __future__ import annotations

import json

import pytest

from coterie.checkpoint import load_model
from coterie.foundation.layers import Layer, load_settings
from coterie.foundation.runs import RunDirectory
from coterie.train import RunSettings, machine, train

LINES = (f"{n} times {n} is {n * n}, said the king.\n" for n in range(60))
TEXT = "USER:\n\nASSISTANT:\n" + "".join(LINES)
ROWS = [
    {"messages": [{"role": "user", "content": f"{n} times {n}"},
                  {"role": "assistant", "content": f"is {n * n}"}]}
    for n in range(12)
]  # fmt: skip


@pytest.fixture(autouse=True)
def known_machine(monkeypatch):
    """Spare each test the measurement of the machine."""
    monkeypatch.setattr(machine, "measure_matmul", lambda precision, seconds=0.0: 1e11)


@pytest.fixture(scope="session")
def base_path(tmp_path_factory):
    """Return the checkpoint of a run of two steps: one dense and one routed layer."""
    place = tmp_path_factory.mktemp("base")
    (place / "text.txt").write_text(TEXT, encoding="utf-8")
    values = {
        "seed": 7,
        "data": {"source": str(place / "text.txt"), "valid_fraction": 0.1, "split": "tail"},
        "tokenizer": {"kind": "characters", "special_tokens": ["<S>"]},
        "model": {
            "layers": 2, "width": 16, "context": 64, "attention": {"kind": "grouped", "heads": 2},
            "feedforward": {
                "kind": "moe", "experts": [{"mlp": {"kind": "gated", "width": 16}, "count": 4}],
                "experts_per_token": 2, "balance": {"kind": "bias"},
            },
        },
        "train": {"steps": 2, "batch_size": 4, "evaluate_every": 0, "sample_every": 0},
    }  # fmt: skip
    patch = pytest.MonkeyPatch()
    patch.setattr(machine, "measure_matmul", lambda precision, seconds=0.0: 1e11)
    patch.setenv("COTERIE_CACHE", str(place / "cache"))
    try:
        settings = load_settings(RunSettings, [Layer("base", values)]).settings
        result = train(settings, RunDirectory.create(place / "runs", "base"), preset="none")
    finally:
        patch.undo()
    return result.checkpoint


@pytest.fixture
def base(base_path):
    return load_model(base_path)


@pytest.fixture
def rows_of(tmp_path):
    """Return a maker of JSONL files."""

    def make(rows, name="rows.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return make
