"""JSONL: the column is decided by the whole file; each row that cannot be used is named."""

from __future__ import annotations

import json

import pytest

from coterie.data import Sources, tables
from coterie.foundation.errors import DataError


@pytest.fixture
def rows(tmp_path):
    """Write rows, as objects or as they stand, and return the path."""

    def write(*rows, name="a.jsonl"):
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8", errors="surrogateescape")
        return tmp_path / name

    return write


def skipping(path, **options):
    sources = Sources([path], on_error="skip", **options)
    return [document.text for document in sources], sources.report


def test_a_first_row_without_the_text_does_not_choose_another_column(rows):
    path = rows({"title": "wrong", "id": 1}, {"title": "wrong too", "text": "right"})
    with pytest.raises(DataError, match=r"a\.jsonl:1: no field “text”"):
        list(Sources([path]))
    assert skipping(path)[0] == ["right"]
    assert skipping(path)[1].problems == [f"{path}:1: no field “text”"]
    with pytest.raises(DataError, match=r"a\.jsonl:2: no field “body”"):
        list(Sources([rows({"body": "x"}, {"text": "y"})], column="body"))


def test_a_named_column_may_be_missing_in_the_first_row(rows):
    path = rows({"text": "no"}, {"text": "no", "body": "yes"})
    assert skipping(path, column="body")[0] == ["yes"]


def test_the_only_column_with_text_is_read_and_told(rows):
    path = rows({"n": 1}, {"story": "once", "n": 2}, {"story": "twice"})
    texts, report = skipping(path)
    assert texts == ["once", "twice"]
    assert report.notes == [f"{path}: the documents are the column “story”, the only one with text"]
    assert report.problems == [f"{path}:1: no field “story”"]


@pytest.mark.parametrize(
    ("first", "later", "why"),
    [
        ({"title": "a"}, {"body": "b"}, "Which column .*choices: body, title"),
        ({"a": {"text": "deep"}}, {"a": 1}, "Which column .* None holds text. choices: a"),
        ({"a": "x", "b": "y"}, {"a": "z"}, "Which column .*choices: a, b"),
    ],
)
def test_several_columns_or_none_are_asked_about(rows, first, later, why):
    with pytest.raises(DataError, match=why):
        list(Sources([rows(first, later)]))


def test_text_that_is_no_text_is_a_bad_row_and_no_reason_for_another_column(rows):
    path = rows({"text": 5, "title": "t"}, {"text": None, "title": "t"}, {"text": "good"})
    texts, report = skipping(path)
    assert texts == ["good"]
    assert [problem.partition("holds ")[2] for problem in report.problems] == [
        "int, not text", "null, not text",
    ]  # fmt: skip


BAD = {
    '{"text": "a", "text": "b"}': "the field “text” is given twice",
    '{"text": "caf\udce9"}': "not UTF-8: byte 0xE9",
    '{"text": "a\0b"}': "zero byte",
    '{"text": "a\tb"}': "Invalid control character",
    "[1]": "not a JSON object but list",
    '{"text": ' + "9" * 5000 + "}": "not usable JSON",
    '{"text": "too long ' + "x" * 400 + '"}': "longer than 300 characters",
}


@pytest.mark.parametrize("row", BAD)
def test_a_bad_row_leaves_all_others(rows, monkeypatch, row):
    if "too long" in row:
        monkeypatch.setattr(tables, "MAX_ROW", 300)
    path = rows({"text": "before"}, row, "", {"text": "after"})
    texts, report = skipping(path)
    assert texts == ["before", "after"]
    assert len(report.problems) == 1
    assert f"{path}:2" in report.problems[0]
    assert BAD[row] in report.problems[0]
    with pytest.raises(DataError, match=r"a\.jsonl:2: "):
        list(Sources([path]))


def test_a_nested_name_given_twice_does_no_harm(rows):
    assert skipping(rows('{"m": {"a": 1, "a": 2}, "text": "good"}'))[0] == ["good"]


def test_files_of_a_folder_choose_for_themselves(rows, tmp_path):
    rows({"body": "b1"}, name="b.jsonl")
    rows({"text": "t1", "body": "not this"}, name="c.jsonl")
    rows({"body": "d1"}, name="d.jsonl")
    rows({"one": "x", "two": "y"}, name="e.jsonl")
    texts, report = skipping(tmp_path)
    assert texts == ["b1", "t1", "d1"]
    assert len(report.notes) == 1
    assert "b.jsonl and 1 more: the documents are the column “body”" in report.notes[0]
    assert "Which column" in report.problems[0]
    with pytest.raises(DataError, match=r"Which column of .*e\.jsonl"):
        list(Sources([tmp_path]))
    assert skipping(tmp_path, column="body")[0] == ["b1", "not this", "d1"]


def test_a_byte_order_mark_and_other_line_ends_are_no_matter(rows):
    path = rows({"text": "a"}, {"text": "b"})
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert skipping(path)[0] == ["a", "b"]


def test_lines_of_any_length_come_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("coterie.data.text.PIECE", 7)
    texts = ["x" * n for n in (1, 6, 7, 8, 50, 1)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    assert skipping(tmp_path / "a.jsonl")[0] == texts
