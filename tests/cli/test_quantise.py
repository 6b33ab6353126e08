"""`coterie model quantise`, and the verbs that use what it makes."""

from __future__ import annotations

import json

import pytest

import coterie
from coterie.cli.app import run as call
from coterie.exchange.runs import ORIGIN
from coterie.foundation.runs import runs_root
from coterie.train import loop


@pytest.fixture
def small(tiny_run, capsys) -> dict:
    """Quantise the run `tiny` to int4, as `tiny-int4`."""
    assert call(["model", "quantise", "tiny", "--weights", "int4", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def told(capsys, *words: str) -> dict:
    assert call([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *words: str) -> str:
    assert call(list(words)) == 2
    return " ".join(capsys.readouterr().err.split())


def test_makes_a_run_that_writes_and_scores_like_weights_quantised_while_loaded(small, capsys):
    assert small["run"] == "tiny-int4"
    origin = json.loads((runs_root() / "tiny-int4" / ORIGIN).read_text())
    assert origin["weights"] == small["weights"] | {"kind": "int4"}
    assert origin["source"] == small["from"]
    words = ("It was", "temperature=0", "max_tokens=4")
    made = [
        told(capsys, "generate", "tiny-int4", *words),
        told(capsys, "generate", "tiny", *words, "weights=int4"),
    ]
    assert made[0]["samples"][0]["tokens"] == made[1]["samples"][0]["tokens"]
    scores = [
        told(capsys, "evaluate", *words, "--text", "It was a day")["nats_per_token"]
        for words in (["tiny-int4"], ["tiny", "weights=int4"], ["tiny"])
    ]
    assert scores[0] == scores[1] != scores[2]
    model = coterie.load("tiny", weights={"kind": "int4"})
    assert "int4" in model._facts()["weights"]
    assert model.score("It was a day").nats_per_token == pytest.approx(scores[0])


def test_bytes_before_and_after(small, capsys):
    shown = told(capsys, "model", "show", "tiny-int4", "--tensors")
    sizes = small["bytes"]
    assert shown["weights"]["stored"] == "int4"
    assert shown["weights"]["bytes_on_disk"] == sizes["disk"]["after"] < sizes["disk"]["before"]
    memory = shown["weights"]["bytes_in_memory"]
    assert sizes["memory"] == {"before": memory["float32"], "after": memory["int4"]}
    rows = {row["name"]: row for row in shown["tensors"]}
    packed = rows["blocks.0.attention.query.packed"]
    assert (packed["role"], packed["dtype"]) == ("matrix", "uint8")
    assert not [name for name, row in rows.items() if row["role"] == "buffer"]


def test_training_it_is_refused_with_the_way_out_before_data_are_read(small, capsys, monkeypatch):
    monkeypatch.setattr(loop, "open_session", None)  # it would be called
    said = refused(capsys, "train", "--resume", "tiny-int4", "train.steps=1")
    assert "are int4: they write and score text, but cannot be trained" in said
    assert "origin.json" in said


def test_a_longer_context_keeps_the_format(small, capsys):
    made = told(capsys, "model", "extend", "tiny-int4", "context=128", "method=yarn")
    assert told(capsys, "model", "show", made["run"])["weights"]["stored"] == "int4"


def test_an_export_says_what_it_writes(small, capsys, tmp_path):
    assert call(["model", "export", "tiny-int4", "--out", str(tmp_path / "out")]) == 0
    assert "The weights are int4; written is what they stand for" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["model", "quantise", "tiny"], "Which format? Choose --weights int8 or --weights int4"),
        (["model", "quantise", "tiny", "--weights", "int7"], "no kind “int7”"),
        (["model", "quantise", "tiny", "--weights", "int8", "weights.hed=int8"], "“head”"),
        (["model", "quantise", "tiny", "--weights", "int8", "seed=1"], "`weights` alone"),
        (["model", "quantise", "tiny-int4", "--weights", "int8"], "int4 already"),
        (["model", "quantise", "tiny", "--weights", "int4", "--name", "tiny"], "“tiny” already"),
        (["generate", "tiny-int4", "x", "weights=int8"], "int4 already"),
        (["evaluate", "tiny", "seed=1"], "cache=… and weights=… alone"),
    ],
)
def test_refusals(words, says, small, capsys):
    assert says in refused(capsys, *words)
