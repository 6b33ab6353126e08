"""Stores from Python: those of `coterie data prepare`."""

from __future__ import annotations

import pytest

import coterie
from coterie.cli.app import run as command
from coterie.data import open_store
from coterie.foundation.errors import DataError, TokenizerError, UserError


@pytest.fixture
def rows(places):
    (places / "rows.csv").write_text('id,story\n1,"a <X> b"\n2,bad,row\n3,"<PLAY>"\n4,"c"\n')
    return places / "rows.csv"


def test_it_is_the_store_that_the_command_line_makes(rows, capsys):
    options = {"column": "story", "on_error": "skip", "special": ["<X>"], "valid_fraction": 0}
    store = coterie.prepare(rows, "mine", tokenizer="bytes", **options)
    assert command([
        "data", "prepare", "rows.csv", "--out", "theirs", "--tokenizer", "bytes", "--column",
        "story", "--on-error", "skip", "--special", "<X>", "--valid-fraction", "0",
    ]) == 0  # fmt: skip
    assert store.fingerprint == open_store("theirs").fingerprint
    assert store.manifest.skipped == 1
    assert "train" in repr(store)


def test_several_inputs_are_read_in_order_and_an_old_store_stays(places):
    for name in "ab":
        (places / f"{name}.txt").write_text(name * 50)
    asked = {"tokenizer": "bytes", "valid_fraction": 0}
    store = coterie.prepare([places / "a.txt", "b.txt"], "store", **asked)
    assert store.tokenizer.decode(store.tokens("train")[:50]) == "a" * 50
    with pytest.raises(UserError, match="exists already: a store"):
        coterie.prepare("b.txt", "store", **asked)
    assert coterie.prepare("b.txt", "store", replace=True, **asked).manifest.skipped == 0


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"colum": "story"}, UserError, "did you mean “column”"),
        ({"column": "stroy"}, DataError, "story"),
        ({"tokenizer": "gpt9"}, TokenizerError, "did you mean “gpt2”"),
    ],
)
def test_mistakes_are_told_and_leave_nothing(rows, places, options, error, told):
    with pytest.raises(error, match=told):
        coterie.prepare(rows, "out", **options)
    assert [path.name for path in places.iterdir()] == ["rows.csv"]
