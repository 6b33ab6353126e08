"""What is left out of a text is told in the same words, by preparing and by training."""

from __future__ import annotations

import json
import os

import pytest

from coterie.cli.app import run as coterie
from coterie.data import DataSettings, store_for
from coterie.foundation.errors import DataError
from coterie.tokenizer.raw_bytes import Bytes


@pytest.fixture
def texts(tmp_path, monkeypatch):
    """A folder with good text, a row, a link and a name that are wrong, and an unreadable file."""
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "good.txt").write_text("Good text. " * 50)
    (folder / "gone").symlink_to(folder / "nowhere")
    (folder / "table.csv").write_text('"a" b,text\nx,y\n')
    with open(os.fsencode(folder) + b"/caf\xe9.jsonl", "w") as file:
        file.write('{"text": "a row"}\n{\n')
    (folder / "shut.txt").write_text("unreadable")
    real = open

    def refuse(path, *arguments, **options):
        if str(path).endswith("shut.txt"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr("builtins.open", refuse)
    return folder


def test_everything_left_out_is_listed_by_both(texts, tmp_path, capsys):
    data = DataSettings(source=str(texts), on_error="skip")
    trained = store_for(data, Bytes(), tmp_path / "cache").manifest
    words = ["--tokenizer", "bytes", "--on-error", "skip", "--out", str(tmp_path / "s"), "--json"]
    assert coterie(["data", "prepare", str(texts), *words]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["problems"] == list(trained.problems)
    assert told["skipped"] == trained.skipped == 4
    places = ["gone is a link to", "caf\\udce9.jsonl:2: ", "shut.txt cannot be read", "table.csv:1"]
    for place in places:
        assert sum(place in problem for problem in told["problems"]) == 1, place
    assert trained.splits["train"].documents + trained.splits["valid"].documents == 2


def test_without_leave_both_stop_with_the_same_words(texts, tmp_path, capsys):
    (texts / "gone").unlink()
    (texts / "table.csv").unlink()
    os.unlink(os.fsencode(texts) + b"/caf\xe9.jsonl")
    with pytest.raises(DataError, match=r"shut\.txt cannot be read: Permission denied") as caught:
        store_for(DataSettings(source=str(texts)), Bytes(), tmp_path / "cache")
    out = str(tmp_path / "s")
    assert coterie(["data", "prepare", str(texts), "--tokenizer", "bytes", "--out", out]) == 2
    told = capsys.readouterr().err
    assert caught.value.message in told
    assert "--on-error skip" in told
    assert not os.path.exists(out)
