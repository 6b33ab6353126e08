"""One small run, trained once through the front door, for every test about what comes of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

import coterie

TEXT = "It was a bright cold day in April, and the clocks were striking thirteen.\n" * 40


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """Return the folder of runs that holds `tiny`; nobody changes it."""
    folder = tmp_path_factory.mktemp("trained")
    text = folder / "april.txt"
    text.write_text(TEXT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COTERIE_RUNS", str(folder / "runs"))
        patch.setenv("COTERIE_CACHE", str(folder / "cache"))
        coterie.train(
            "quickstart",
            {
                "scale": "tiny", "data": {"source": text, "split": "tail"}, "sample.max_tokens": 5,
                "train.steps": 4, "train.evaluate_every": 2, "train.device": "cpu",
            },
            name="tiny",
        )  # fmt: skip
    return folder / "runs"


@pytest.fixture
def runs(trained, monkeypatch) -> Path:
    """Make the folder of that run the place of runs."""
    monkeypatch.setenv("COTERIE_RUNS", str(trained))
    return trained
