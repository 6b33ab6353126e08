"""Tuning end to end, on machines that lack something."""

from __future__ import annotations

import importlib
import os

import pytest

import coterie
from coterie.foundation.layers import Layer, load_settings
from coterie.presets import preset_layers
from coterie.train import RunSettings, memory
from coterie.train.memory import estimate_memory
from coterie.train.precision import resolve_device, resolve_precision


@pytest.fixture
def changes(tmp_path, monkeypatch):
    """Return what makes a preset's tiny twin train on a little text, with two micro-batches."""
    monkeypatch.setenv("COTERIE_CACHE", str(tmp_path / "cache"))
    text = tmp_path / "april.txt"
    text.write_text("It was a bright cold day in April, and the clocks were striking.\n" * 40)
    return {
        "scale": "tiny", "data": {"source": str(text), "split": "tail"},
        "train": {"device": "cpu", "gradient_accumulation": 2},
    }  # fmt: skip


def told(found, factor):
    return [trial.note for trial in found.trials if trial.factor == factor]


def test_without_compiler_with_one_core_and_little_memory_it_tells_and_goes_on(
    changes, tmp_path, monkeypatch
):
    builder = importlib.import_module("torch._inductor.cpp_builder")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0}, raising=False)
    own = {key: value for key, value in changes.items() if key != "scale"}
    own["model"] = {"vocab_size": 256}
    layers = [*preset_layers("quickstart", "tiny"), Layer("test", own)]
    run = load_settings(RunSettings, layers).settings
    plain = resolve_precision("float32", resolve_device("cpu"))
    needed = estimate_memory(run, plain)
    monkeypatch.setattr(memory, "memory_of", lambda device: sum(needed.values()))
    builder.cpp_compiler_search.cache_clear()
    try:
        found = coterie.tune(
            "quickstart", {**changes, "model": {"vocab_size": 256}}, seconds=0.001, limit=60.0
        )
    finally:
        builder.cpp_compiler_search.cache_clear()
    assert told(found, "compile") == ["not tried: there is no C++ compiler"]
    assert told(found, "threads") == ["nothing to choose: one core"]
    larger, *smaller = told(found, "micro-batch")
    assert larger.startswith("not tried: This run would need about")
    assert len(smaller) == 1
    assert "not tried" not in smaller[0]
    assert len(told(found, "experts")) == 4
