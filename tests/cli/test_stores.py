"""Stores on the command line: merged, blended, made in parts, and looked at."""

from __future__ import annotations

import json

import pytest

from coterie.cli.app import run as coterie
from coterie.data import open_store


@pytest.fixture
def stores(places):
    for name, words in (("verse", "shall I compare thee"), ("prose", "it was the best of times")):
        folder = places / f"{name}-texts"
        folder.mkdir()
        for number in range(6):
            (folder / f"{number}.txt").write_text(f"{number} {words}\n" * 20)
        made = ["data", "prepare", folder.name, "--out", name, "--tokenizer", "bytes"]
        assert coterie(made) == 0
    return places


def test_merge_inspect_verify_and_train_on_it(stores, capsys):
    capsys.readouterr()
    weights = ["--weights", "0.7", "0.3"]
    assert coterie(["data", "merge", "verse", "prose", *weights, "--out", "both"]) == 0
    assert "weighted" in capsys.readouterr().out
    assert coterie(["data", "inspect", "both"]) == 0
    shown = capsys.readouterr().out
    assert "70.00%" in shown
    assert "characters/token" in " ".join(shown.split())  # no line is cut
    assert "verse, train begins" in shown
    assert coterie(["data", "inspect", "both", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["shares"] == {"verse": pytest.approx(0.7), "prose": pytest.approx(0.3)}
    assert coterie(["data", "verify", "both"]) == 0
    assert "70.0000% asked for" in capsys.readouterr().out
    words = ["quickstart", "scale=tiny", "data.store=both", "train.steps=2", "--name", "m"]
    assert coterie(["train", *words]) == 0
    capsys.readouterr()
    assert coterie(["evaluate", "m", "--json"]) == 0
    assert {"valid/verse", "valid/prose"} <= set(json.loads(capsys.readouterr().out))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["verse"], "Two stores at least"),
        (["verse", "missing"], "no token store"),
        (["verse", "verse"], "named twice"),
        (["verse", "prose", "--weights", "0.7"], "weights"),
        (["verse", "prose", "--weights", "0.7", "much"], "a weight is a number"),
        (["verse", "prose", "--weights", "verse=1", "2"], "all weights by name"),
        (["verse", "prose", "--strategy", "equal", "--weights", "1", "2"], "equal has none"),
        (["verse", "prose", "--weights", "-1", "2"], "weights"),
    ],
)
def test_what_cannot_be_merged_is_refused_and_nothing_is_left(stores, capsys, words, told):
    assert coterie(["data", "merge", *words, "--out", "both"]) == 2
    assert told in " ".join(capsys.readouterr().err.split())
    assert not (stores / "both").exists()


def test_parts_are_joined_to_the_store_of_all(stores, capsys):
    for part in ("1/2", "2/2"):
        made = ["data", "prepare", "verse-texts", "--part", part, "--out", f"part-{part[0]}"]
        assert coterie([*made, "--tokenizer", "bytes"]) == 0
    assert coterie(["data", "join", "part-2", "part-1", "--out", "joined"]) == 0
    for name in ("train-00000.bin", "valid-00000.bin"):
        assert (stores / "joined" / name).read_bytes() == (stores / "verse" / name).read_bytes()
    assert coterie(["data", "join", "part-1", "--out", "half"]) == 2
    assert "Part 2 of 2 is missing" in capsys.readouterr().err
    assert not (stores / "half").exists()


@pytest.mark.parametrize("flag", [["--split", "tail"], ["--ledger", "l"], ["--json"]])
def test_what_a_part_cannot_decide_is_refused(stores, capsys, flag):
    made = ["data", "prepare", "verse-texts", "--part", "1/2", "--out", "p", "--tokenizer", "bytes"]
    assert coterie([*made, *flag]) == 2
    assert "coterie data join" in capsys.readouterr().err
    assert not (stores / "p").exists()


def test_a_share_of_other_text_is_blended_in(stores, capsys):
    (stores / "other.txt").write_text("".join(f"{n} grey geese fly over us\n" for n in range(900)))
    words = ["data", "blend", "verse-texts", "other.txt", "--out", "blended", "--report", "left"]
    assert coterie([*words, "--share", "0.2", "--tokenizer", "bytes"]) == 0
    assert "of the training tokens" in capsys.readouterr().out
    assert (stores / "left").read_text() == ""
    assert coterie(["data", "verify", "blended"]) == 0
    again = [*words[:-2], "--share", "0.2", "--tokenizer", "bytes", "--json"]
    assert coterie(again) == 2  # it stands there already
    capsys.readouterr()
    assert coterie([*again, "--replace"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["share"] == pytest.approx(0.2, abs=0.001)
    assert figures["store"]["fingerprint"] == open_store("blended").fingerprint
    assert (
        sum(figures["store"]["splits"]["train"]["lengths"])
        == (figures["store"]["splits"]["train"]["documents"])
    )
    (stores / "same.txt").write_text("0 shall I compare thee\n" * 300)
    words = ["data", "blend", "verse-texts", "same.txt", "--out", "no", "--tokenizer", "bytes"]
    assert coterie(words) == 2
    assert "of the training text" in " ".join(capsys.readouterr().err.split())
    assert not (stores / "no").exists()


def test_a_ledger_names_what_was_left_out_and_replaces_nothing(stores, capsys):
    (stores / "rows.jsonl").write_text('{"text": "one"}\nnot json\n' + '{"text": "two"}\n' * 9)
    words = ["data", "prepare", "rows.jsonl", "--tokenizer", "bytes", "--on-error", "skip"]
    assert coterie([*words, "--out", "s", "--ledger", "ledger.txt"]) == 0
    assert "rows.jsonl:2" in (stores / "ledger.txt").read_text()
    assert coterie([*words, "--out", "t", "--ledger", "ledger.txt"]) == 2
    assert not (stores / "t").exists()
