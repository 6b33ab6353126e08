"""A folder of clean texts with its account appears whole or not at all; inputs stay as they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import coterie
from coterie.foundation import files
from coterie.foundation.errors import DataError, UserError

BOOK = "It was the _best_ of times, it was the worst of times, and so on and on it went. [Pg 7]\n"


def test_texts_and_account_are_written(tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text(BOOK + "odd | mark\n")
    found = coterie.clean(book, tmp_path / "out")
    assert (tmp_path / "out/texts/book.txt").read_text() == (
        "It was the best of times, it was the worst of times, and so on and on it went.\n"
        "odd | mark\n"
    )
    rows = [json.loads(row) for row in (tmp_path / "out/report.jsonl").read_text().splitlines()]
    assert [(row["line"], row["what"]) for row in rows] == [(2, "unrecognised"), (1, "removed")]
    assert found.kinds == {"book": 1}
    assert book.read_text() == BOOK + "odd | mark\n"


def test_texts_are_respelled_beside_their_original(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_text("I haue beene heere before.\n")
    coterie.clean(tmp_path / "old.txt", tmp_path / "out", kind="gutenberg", spelling="modern")
    assert (tmp_path / "out/texts/old.txt").read_text() == "I have been here before.\n"
    assert (tmp_path / "out/original/old.txt").read_text() == "I haue beene heere before.\n"
    with pytest.raises(UserError, match="modern"):
        coterie.clean(tmp_path / "old.txt", tmp_path / "new", spelling="modren")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "told"),
    [(b"", "empty"), (b"\0\1\2" * 100, "binary"), ("café".encode("latin-1"), "not UTF-8"),
     (b"[Pg 7]\n", "nothing but")],
)  # fmt: skip
def test_bad_input_is_refused_and_nothing_written(tmp_path: Path, data: bytes, told: str) -> None:
    (tmp_path / "bad.txt").write_bytes(data)
    with pytest.raises(DataError, match=told):
        coterie.clean(tmp_path / "bad.txt", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.txt"]


def test_equal_names_links_in_circles_and_a_taken_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "x.txt").write_text(BOOK)
        (tmp_path / "in" / name / "loop").symlink_to(tmp_path / "in")
    with pytest.raises(DataError, match="would both become"):
        coterie.clean(tmp_path / "in", tmp_path / "out")
    (tmp_path / "in/a/x.txt").unlink()
    coterie.clean(tmp_path / "in", tmp_path / "out", kind="gutenberg")
    with pytest.raises(UserError, match="exists"):
        coterie.clean(tmp_path / "in", tmp_path / "out")
    with pytest.raises(UserError, match="gutenberg"):
        coterie.clean(tmp_path / "in", tmp_path / "new", kind="gutenburg")  # type: ignore[arg-type]


def test_a_text_of_which_nothing_is_left_is_skipped_on_request(tmp_path: Path) -> None:
    for name, text in (("bare", "[Pg 7]\n"), ("book", BOOK)):
        (tmp_path / f"{name}.txt").write_text(text)
    inputs = [tmp_path / "bare.txt", tmp_path / "book.txt"]
    with pytest.raises(DataError, match=r"bare\.txt: nothing but") as caught:
        coterie.clean(inputs, tmp_path / "out")
    assert "--on-error skip" in (caught.value.hint or "")
    found = coterie.clean(inputs, tmp_path / "out", on_error="skip")
    assert [path.name for path in (tmp_path / "out/texts").iterdir()] == ["book.txt"]
    assert (found.reading.skipped, found.kinds) == (1, {"book": 1})
    with pytest.raises(DataError, match=r"No text is left\. .*bare\.txt"):
        coterie.clean(inputs[:1], tmp_path / "none", on_error="skip")
    assert not (tmp_path / "none").exists()


def test_a_report_apart_stays_only_if_the_folder_does(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text(BOOK)
    book, report = tmp_path / "book.txt", tmp_path / "told.jsonl"
    taken = tmp_path / "taken"
    taken.mkdir()
    with pytest.raises(UserError, match="exists"):
        coterie.clean(book, taken, report=report)
    with pytest.raises(UserError, match="inside"):
        coterie.clean(book, tmp_path / "out", report=tmp_path / "out/told.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["book.txt", "taken"]
    coterie.clean(book, tmp_path / "out", report=report)
    assert not (tmp_path / "out/report.jsonl").exists()
    told = report.read_text()
    assert "a page number" in told
    with pytest.raises(UserError, match="exists"):
        coterie.clean(book, tmp_path / "other", report=report)
    assert report.read_text() == told
    assert not (tmp_path / "other").exists()


def test_a_folder_that_cannot_get_its_name_leaves_no_report(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "book.txt").write_text(BOOK)

    rename = files.rename_new

    def fails(partial: Path, target: Path) -> None:
        if partial.is_dir():
            raise OSError(28, "No space left on device")
        rename(partial, target)

    monkeypatch.setattr(files, "rename_new", fails)
    with pytest.raises(UserError):
        coterie.clean(tmp_path / "book.txt", tmp_path / "out", report=tmp_path / "told.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["book.txt"]


def test_works_of_one_file_become_texts_whose_lines_are_those_of_the_file(tmp_path: Path) -> None:
    text = "Before\n\n# ONE\n\nWords of one.\n\n# OTHER\n\nWords {of} another.\n"
    (tmp_path / "all.txt").write_text(text)
    found = coterie.clean(tmp_path / "all.txt", tmp_path / "out", kind="gutenberg", works="several")
    names = sorted(each.name for each in (tmp_path / "out/texts").iterdir())
    assert names == ["all-01-ONE.txt", "all-02-OTHER.txt"]
    assert found.kinds == {"book": 2}
    rows = [json.loads(row) for row in (tmp_path / "out/report.jsonl").read_text().splitlines()]
    told = [(row["what"], row["line"], row["reason"]) for row in rows]
    assert ("removed", 1, "what precedes the first work") in told
    assert ("unrecognised", 9, "marks left over in words") in told
    assert f"{tmp_path}/all.txt#02-OTHER:9" in "".join(found.unrecognised)
    one = coterie.clean(tmp_path / "all.txt", tmp_path / "one", kind="gutenberg")
    assert one.kinds == {"book": 1}
