"""`coterie tokenizer`: train one, look at how it splits."""

from __future__ import annotations

import io
import json

import pytest

from coterie.cli.app import run as coterie
from coterie.tokenizer.saving import load_tokenizer


@pytest.fixture
def trained(places, capsys):
    (places / "book.txt").write_text("Once upon a time there was a time.\n" * 20)
    words = ["tokenizer", "train", "book.txt", "--out", "bpe.json", "--vocab-size", "270"]
    assert coterie([*words, "--special", "<X>"]) == 0
    assert "270 tokens" in capsys.readouterr().out
    return "bpe.json"


def test_trained_files_are_tokenizers(trained):
    tokenizer = load_tokenizer(trained)
    assert tokenizer.vocab_size == 270
    assert len(tokenizer.encode("<X>")) == 1


def test_inspect_shows_pieces(trained, capsys):
    assert coterie(["tokenizer", "inspect", trained, "a time<X>\n"]) == 0
    captured = capsys.readouterr()
    assert "' time'" in captured.out
    assert "'<X>'" in captured.out
    assert r"'\n'" in captured.out
    assert "characters per token" in captured.out
    assert "coterie data prepare" in captured.err


def test_inspect_as_json_also_reads_standard_input(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("Hello world"))
    assert coterie(["tokenizer", "inspect", "gpt2", "-", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["tokens"] == [15496, 995]
    assert figures["pieces"] == ["Hello", " world"]
    assert figures["characters_per_token"] == 5.5
    assert figures["gives_back_the_text"] is True


def test_parts_of_characters_and_empty_texts_are_shown(capsys):
    assert coterie(["tokenizer", "inspect", "bytes", "é"]) == 0
    assert r"\xc3" in capsys.readouterr().out
    assert coterie(["tokenizer", "inspect", "bytes", "", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["characters_per_token"] is None


def test_long_texts_are_cut_short_and_unfaithful_ones_said(places, capsys):
    assert coterie(["tokenizer", "inspect", "bytes", "x" * 500]) == 0
    assert "and 100 more" in capsys.readouterr().out
    import tokenizers

    rules = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[U]": 0}, unk_token="[U]"))
    rules.save(str(places / "words.json"))
    assert coterie(["tokenizer", "inspect", "words.json", "what"]) == 0
    assert "does not give this text back" in capsys.readouterr().err


def test_training_as_json_and_from_rows_with_faults(places, capsys):
    (places / "a.jsonl").write_text('{"text": "abab abab"}\n{\n')
    words = ["tokenizer", "train", "a.jsonl", "--out", "t.json", "--on-error", "skip"]
    assert coterie([*words, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["skipped"] == 1
    assert figures["vocab_size"] < 4096
    assert coterie([*words, "--replace"]) == 0
    err = capsys.readouterr().err
    assert "fewer than the 4,096" in err
    assert "a.jsonl:2" in err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["train", "book.txt", "--out", "bpe.json"], "exists already"),
        (["train", "book.txt", "--out", "new.json", "--vocab-size", "12"], "greater than"),
        (["train", "gone.txt", "--out", "new.json"], "There is no input"),
        (["inspect", "characters", "text"], "no vocabulary before"),
        (["inspect", "bpe:300", "text"], "no vocabulary before"),
        (["inspect", "book.txt", "text"], "not usable JSON"),
        (["inspect", "gpt3", "text"], "did you mean “gpt2”"),
    ],
)
def test_mistakes_exit_with_2(trained, places, capsys, words, why):
    before = sorted(path.name for path in places.iterdir())
    assert coterie(["tokenizer", *words]) == 2
    assert why in " ".join(capsys.readouterr().err.split())
    assert sorted(path.name for path in places.iterdir()) == before
