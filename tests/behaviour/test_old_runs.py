"""Runs and stores that earlier versions wrote are loaded, continued and generated from as before.

The fixtures were written before settings and tensors had their present names, in both formats of
checkpoints; `expected.json` holds what the version that wrote them made of them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from coterie.cli.app import run
from coterie.foundation.event_log import read_events
from coterie.foundation.runs import find_run
from coterie.train.events import StepDone

OLD = Path(__file__).with_name("old_runs")
EXPECTED = json.loads((OLD / "expected.json").read_text())
each_format = pytest.mark.parametrize("form", ["format1", "format2"])


@pytest.fixture
def old(form, tmp_path):
    """Put a run where runs are, and its text where it was read from."""
    shutil.copytree(OLD / form / "run", tmp_path / "runs" / "old")
    shutil.copy(OLD / "text.txt", tmp_path / "text.txt")
    return EXPECTED[form]


def printed(capsys, *words):
    assert run([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@each_format
def test_a_run_generates_and_is_measured_as_before(old, capsys):
    sample = printed(capsys, "generate", "old", "the", "temperature=0", "max_tokens=30")
    (text,) = sample["samples"]
    assert text["text"] == old["text"]
    logprobs = [token["logprob"] for token in text["tokens"]]
    assert logprobs == pytest.approx(old["logprobs"], abs=1e-5)
    measured = printed(capsys, "evaluate", "old")
    assert measured["nats_per_token"] == pytest.approx(old["nats_per_token"], abs=1e-6)
    assert printed(capsys, "model", "show", "old")


@each_format
def test_a_run_is_continued_as_before(old, capsys):
    assert run(["train", "--resume", "old", "train.steps=8"]) == 0
    events = read_events(find_run("old").events)
    losses = [event.loss for event in events if isinstance(event, StepDone)]
    assert len(losses) == 8
    assert losses[4:] == pytest.approx(old["losses_resumed"], abs=1e-5)
    assert "gradient_accumulation: 2" in find_run("old").config.read_text()
    # What was written now is read as any run of today is.
    assert run(["train", "--resume", "old", "train.steps=9"]) == 0


@each_format
def test_a_store_is_sound_and_trained_on(form, tmp_path, capsys):
    store = tmp_path / "store"
    shutil.copytree(OLD / form / "store", store)
    assert run(["data", "verify", str(store)]) == 0
    words = [f"data.store={store}", "tokenizer.kind=file", f"tokenizer.path={store}",
             "tokenizer.special_tokens=[]", "scale=tiny", "train.steps=2",
             "train.sample_every=0"]  # fmt: skip
    assert run(["train", "quickstart", *words, "--name", "new"]) == 0


@each_format
def test_a_runs_file_can_begin_a_new_run(old, tmp_path):
    config = tmp_path / "runs" / "old" / "config.yaml"
    assert run(["train", str(config), "train.steps=2", "--name", "again"]) == 0
