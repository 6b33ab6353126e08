"""`coterie evaluate`: its figures are those of the library, and bad input is told."""

from __future__ import annotations

import io
import json
import sys

import pytest

from coterie.checkpoint import load_model
from coterie.cli import app
from coterie.data import evaluation_batches, store_for
from coterie.evaluate import Scoring, perplexity, validate
from coterie.foundation.runs import cache_root
from coterie.train.settings import RunSettings
from tests.cli.conftest import make_run


def asked(*words: str, capsys) -> dict:
    assert app.run(["evaluate", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_validation_loss_is_the_one_that_training_reports(tiny_run, capsys):
    shown = asked("latest", capsys=capsys)
    loaded = load_model("tiny")
    settings = RunSettings.model_validate(loaded.settings)
    store = store_for(settings.data, settings.tokenizer, cache_root())
    found = validate(loaded.decoder, evaluation_batches(store.tokens("valid"), 16, 3))
    assert shown["nats_per_token"] == pytest.approx(found.loss, abs=1e-5)
    assert shown["tokens"] == found.tokens == len(store.tokens("valid")) - 1
    for layer in shown["routing"]:
        assert sum(layer["load"]) == 2 * found.tokens  # two experts for every token


def test_a_file_is_measured_as_by_the_library(tiny_run, capsys):
    shown = asked("tiny", str(tiny_run), "--stride", "5", capsys=capsys)
    loaded = load_model("tiny")
    text = tiny_run.read_text(encoding="utf-8")
    found = perplexity(loaded.decoder, loaded.tokenizer, text, Scoring(stride=5))
    assert shown["perplexity"] == pytest.approx(found.perplexity)
    assert shown["bits_per_byte"] == pytest.approx(found.bits_per_byte)
    assert (shown["characters"], shown["bytes"]) == (len(text), len(text.encode()))


def test_documents_of_a_table_add_up(tiny_run, places, capsys):
    (places / "two.jsonl").write_text('{"say": "It was"}\n{"say": "cold."}\n')
    shown = asked("tiny", "two.jsonl", "--column", "say", capsys=capsys)
    assert (shown["documents"], shown["characters"]) == (2, 11)


def test_tokens_are_listed_with_their_logprobs(tiny_run, places, capsys):
    (places / "a.txt").write_text("It was")
    shown = asked("tiny", "a.txt", "--tokens", capsys=capsys)
    rows = shown["token_logprobs"]
    assert "".join(row["text"] for row in rows) == "It was"
    assert -sum(row["logprob"] for row in rows) / 6 == pytest.approx(shown["nats_per_token"])
    assert app.run(["evaluate", "tiny", "a.txt", "--tokens"]) == 0
    assert f"{rows[0]['logprob']:9.4f}" in capsys.readouterr().out


def test_the_table_shows_every_layer(tiny_run, capsys):
    assert app.run(["evaluate", "tiny"]) == 0
    shown = capsys.readouterr()
    assert "nats per token" in shown.out
    assert "max/mean − 1" in shown.out
    assert [line.split()[:2] for line in shown.out.splitlines()[-2:]] == [["0", "4"], ["1", "4"]]
    assert "coterie generate tiny" in shown.err


def test_a_changed_text_is_not_measured_in_the_old_ones_name(tiny_run, capsys):
    tiny_run.write_text(tiny_run.read_text(encoding="utf-8")[::-1], encoding="utf-8")
    assert app.run(["evaluate", "tiny"]) == 2
    assert "the text was changed since" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tiny", "nowhere.txt"], "There is no input “nowhere.txt”"),
        (["tiny", "empty.txt"], "empty"),
        (["tiny", "binary.bin"], "binary"),
        (["tiny", "april.txt", "--stride", "17"], "the window of 16 tokens"),
        (["tiny", "april.txt", "--window", "0"], "at least one token"),
        (["tiny", "--tokens"], "need a FILE"),
        (["tiny", "--raw"], "need a FILE"),
        (["tiny", "april.txt", "--raw", "--clean", "whitespace"], "contradict each other"),
        (["tiny", "--text", ""], "--text 1 is empty"),
        (["tiny", "-"], "standard input is empty"),
        (["tiny", "--text", " ", "--clean", "whitespace"], "cleaning leaves nothing"),
        (["tiny", "seed=3"], "of settings cache=… and weights=… alone"),
        (["tinny"], "did you mean “tiny”"),
        ([], "Which run?"),
    ],
)
def test_what_cannot_be_done_is_the_users_error(
    words, message, tiny_run, places, capsys, monkeypatch
):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    (places / "empty.txt").touch()
    (places / "binary.bin").write_bytes(bytes(range(256)))
    assert app.run(["evaluate", *words]) == 2
    shown = capsys.readouterr()
    assert message in " ".join(shown.err.split())
    assert shown.out == ""


def test_unknown_characters_are_told(tiny_run, places, capsys):
    (places / "far.txt").write_text("It 本本", encoding="utf-8")
    assert app.run(["evaluate", "tiny", "far.txt"]) == 0
    assert "2 characters are unknown" in " ".join(capsys.readouterr().err.split())


def test_texts_come_from_the_command_line_and_from_standard_input(
    tiny_run, places, capsys, monkeypatch
):
    (places / "a.txt").write_text("It was cold.")
    monkeypatch.setattr(sys, "stdin", io.StringIO("the clocks"))
    shown = asked("tiny", "a.txt", "-", "--text", "It", "--text", "was a", capsys=capsys)
    assert [each["input"] for each in shown["inputs"]] == [
        "a.txt", "standard input", "--text 1", "--text 2"
    ]  # fmt: skip
    assert [each["characters"] for each in shown["inputs"]] == [12, 10, 2, 5]
    alone = asked("tiny", "--text", "was a", capsys=capsys)
    assert alone["nats_per_token"] == pytest.approx(shown["inputs"][3]["nats_per_token"])
    total = sum(each["nats_per_token"] * each["tokens"] for each in shown["inputs"])
    assert total / shown["tokens"] == pytest.approx(shown["nats_per_token"])


def test_the_windows_are_named(tiny_run, capsys):
    assert asked("tiny", "--text", "It", capsys=capsys)["windows"] == "disjoint, of 16 tokens"
    sliding = asked("tiny", "--text", "It", "--stride", "4", "--window", "12", capsys=capsys)
    assert sliding["windows"] == "sliding, of 12 tokens every 4"


def test_a_text_is_cleaned_as_the_runs_own_were(places, capsys):
    make_run(places, clean=["whitespace"])
    words = ("tiny", "--text", "It was  \n\n\n\ncold.\n")
    assert app.run(["evaluate", *words, "--json"]) == 0
    out, told = capsys.readouterr()
    shown = json.loads(out)
    assert "cleaned as the run's own texts were (whitespace)" in " ".join(told.split())
    assert shown["characters"] == len("It was\n\ncold.\n")
    assert [each["kind"] for each in shown["clean"]] == ["whitespace"]
    assert app.run(["evaluate", *words, "--raw", "--json"]) == 0
    out, told = capsys.readouterr()
    assert json.loads(out)["characters"] == len(words[2])
    assert told == ""
