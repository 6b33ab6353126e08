"""`coterie tune`: the table, the overlay, and how to use it."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from coterie.api import tuning
from coterie.benchmark.tune import Duel
from coterie.cli.app import run as command


@pytest.fixture(autouse=True)
def bench(monkeypatch):
    """Stand in for what measures: half as many micro-batches run twice as fast."""

    class Bench:
        def __init__(self, settings, seconds, limit, tell):
            self.settings, self.rows, self.device = settings, 2, torch.device("cpu")
            self.precision = SimpleNamespace(name="float32")

        def __call__(self, best, other, turns):
            gain = other.train.micro_batch_size / best.train.micro_batch_size
            return Duel((gain,), (gain,))

    monkeypatch.setattr(tuning, "Bench", Bench)


WORDS = ["tune", "quickstart", "scale=tiny", "train.gradient_accumulation=2"]


def test_it_writes_an_overlay_that_train_takes(capsys, places):
    assert command(WORDS) == 0
    out, err = capsys.readouterr()
    assert "won" in out
    assert "2.00 times as fast" in out
    assert "Steps of 2 of 4 windows are timed." in err
    call = (
        "coterie train quickstart scale=tiny train.gradient_accumulation=2 @quickstart-tuned.yaml"
    )
    assert call in err
    words = ["train", "quickstart", "scale=tiny", "@quickstart-tuned.yaml", "--dry-run"]
    assert command(words) == 0
    assert "train.gradient_accumulation = 1  # quickstart-tuned.yaml" in capsys.readouterr().out


def test_json_and_a_file_that_is_there(capsys, places):
    assert command([*WORDS, "--json", "--out", "fast.yaml"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["file"] == "fast.yaml"
    assert found["overlay"] == {"train": {"gradient_accumulation": 1}}
    assert command([*WORDS, "--out", "fast.yaml"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert command([*WORDS, "--out", "fast.yaml", "--force"]) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["tune"], "For example: coterie tune quickstart"),
        (["tune", "quickstrat"], "quickstart"),
        ([*WORDS, "--out", "."], "is a folder"),
        ([*WORDS, "--out", "april.txt/fast.yaml"], "Cannot write april.txt/fast.yaml"),
        ([*WORDS, "--seconds", "0"], "seconds=0 is no time"),
        ([*WORDS, "--limit", "nan"], "limit=nan is no time"),
    ],
)
def test_bad_input_is_refused_before_anything_is_measured(capsys, places, monkeypatch, words, told):
    monkeypatch.setattr(tuning, "tune_run", None)
    (places / "april.txt").write_text("a bright cold day")
    assert command(words) == 2
    assert told in capsys.readouterr().err


def test_where_nothing_is_faster_nothing_is_written(capsys, places):
    assert command(["tune", "quickstart", "scale=tiny"]) == 0
    out, err = capsys.readouterr()
    assert "Nothing is faster" in out
    assert "no file was written" in out
    assert not (places / "quickstart-tuned.yaml").exists()
    assert "coterie train quickstart scale=tiny" in err
