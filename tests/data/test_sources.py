"""What users name as input: files, folders, tables, the shipped corpus; and its faults."""

from __future__ import annotations

import gzip
import json

import pyarrow
import pytest
from pyarrow import parquet

from coterie.data import Document, Sources, read_documents
from coterie.data import text as text_module
from coterie.data.clean import Whitespace
from coterie.data.documents import whole_documents
from coterie.data.sources import texts_of
from coterie.foundation.errors import DataError


def texts(*inputs, **options):
    return [document.text for document in Sources(inputs, **options)]


def write_rows(path, rows):
    """Write the same rows in the format that the path's ending says."""
    if path.suffix == ".parquet":
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        parquet.write_table(pyarrow.table(columns), path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    else:
        delimiter = "\t" if path.suffix == ".tsv" else ","
        lines = [list(rows[0])] + [list(row.values()) for row in rows]
        quoted = [['"' + str(v).replace('"', '""') + '"' for v in line] for line in lines]
        path.write_text("\n".join(delimiter.join(line) for line in quoted) + "\n")


TABLES = ["a.jsonl", "a.csv", "a.tsv", "a.parquet"]
ROWS = [
    {"id": "1", "text": "first\nline, two", "note": "x"},
    {"id": "2", "text": "", "note": "an empty text is no document"},
    {"id": "3", "text": 'a "quoted" → word', "note": "z"},
]


@pytest.mark.parametrize("name", TABLES)
def test_a_row_is_a_document(tmp_path, name):
    write_rows(tmp_path / name, ROWS)
    assert texts(tmp_path / name) == [ROWS[0]["text"], ROWS[2]["text"]]
    assert texts(tmp_path / name, column="note") == [row["note"] for row in ROWS]


@pytest.mark.parametrize("name", TABLES)
def test_a_wrong_column_is_answered_with_the_nearest(tmp_path, name):
    write_rows(tmp_path / name, ROWS)
    with pytest.raises(DataError, match="no column “txt”; did you mean “text”"):
        texts(tmp_path / name, column="txt")
    with pytest.raises(DataError, match="no column"):  # not a matter of one row
        texts(tmp_path / name, column="txt", on_error="skip")


@pytest.mark.parametrize("name", TABLES)
def test_the_only_text_column_needs_no_name(tmp_path, name):
    write_rows(tmp_path / name, [{"story": "once"}, {"story": "twice"}])
    assert texts(tmp_path / name) == ["once", "twice"]
    write_rows(tmp_path / name, [{"story": "once", "title": "A"}])
    with pytest.raises(DataError, match="Which column") as caught:
        texts(tmp_path / name)
    assert "--column" in caught.value.hint


def test_compressed_tables_are_tables(tmp_path):
    write_rows(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    assert texts(tmp_path / "b.jsonl.gz") == texts(tmp_path / "a.jsonl")


BAD_LINES = [
    ("a.jsonl", '{"text": "good"}\n{"text": \n{"text": "also"}\n', ":2", "not JSON"),
    ("a.jsonl", '{"text": "good"}\n[1]\n{"text": "also"}\n', ":2", "not a JSON object but list"),
    ("a.jsonl", '{"text": "good"}\n{"txt": "x"}\n{"text": "also"}\n', ":2", "no field “text”"),
    ("a.jsonl", '{"text": "good"}\n{"text": 7}\n{"text": "also"}\n', ":2", "holds int, not text"),
    ("a.jsonl", '{"text": "good"}\n{"text": "\\ud800"}\n{"text": "also"}\n', ":2", "surrogate"),
    ("a.jsonl", '{"text": "good"}\n' + "[" * 99999 + '\n{"text": "also"}\n', ":2", "JSON"),
    ("a.csv", "text,n\ngood,1\nx,2,3\nalso,4\n", ":3", "3 fields where the header has 2"),
    ("a.csv", 'text,n\ngood,1\n"x"y,2\nalso,4\n', ":3", "expected after"),
]


@pytest.mark.parametrize(("name", "content", "place", "why"), BAD_LINES)
def test_a_malformed_row_is_located_and_stops_or_is_skipped(tmp_path, name, content, place, why):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match=why) as caught:
        texts(path)
    assert f"{path}{place}" in caught.value.message
    assert "--on-error skip" in caught.value.hint
    sources = Sources([path], on_error="skip")
    for _ in range(2):  # each reading counts afresh
        assert [document.text for document in sources] == ["good", "also"]
        assert sources.report.skipped == 1
        assert why in sources.report.problems[0]
        assert place in sources.report.problems[0]


def test_a_parquet_column_that_is_no_text_is_refused(tmp_path):
    parquet.write_table(pyarrow.table({"n": [1, 2], "story": ["a", "b"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="holds int64, not text"):
        texts(tmp_path / "a.parquet", column="n")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no table PAR1")
    with pytest.raises(DataError, match="not a Parquet file"):
        texts(tmp_path / "b.parquet")


def test_parquet_rows_without_text_are_located(tmp_path):
    table = pyarrow.table({"text": pyarrow.array(["good", None, "also"]).dictionary_encode()})
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet#2: .*holds null"):
        texts(tmp_path / "a.parquet")
    assert texts(tmp_path / "a.parquet", on_error="skip") == ["good", "also"]


def folder_of(tmp_path):
    folder = tmp_path / "books"
    (folder / "part" / ".git").mkdir(parents=True)
    (folder / "b.md").write_text("second")
    (folder / "a.txt").write_text("first")
    (folder / "part" / "c.jsonl").write_text('{"text": "third"}\n{"text": "fourth"}\n')
    (folder / "part" / "empty.py").write_text("")
    (folder / "part" / ".git" / "HEAD").write_text("hidden")
    (folder / ".DS_Store").write_bytes(b"\0")
    return folder


def test_folders_are_read_recursively_in_order(tmp_path):
    sources = Sources([folder_of(tmp_path)])
    assert [document.text for document in sources] == ["first", "second", "third", "fourth"]
    assert sources.report.empty_files == 1
    assert sources.report.documents == 4


def test_binary_files_in_folders_are_refused_or_reported(tmp_path):
    folder = folder_of(tmp_path)
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    with pytest.raises(DataError, match=r"picture\.png is a binary file"):
        texts(folder)
    sources = Sources([folder], on_error="skip")
    assert len(list(sources)) == 4
    assert "picture.png" in sources.report.problems[0]


def test_a_file_wrong_at_its_end_is_skipped_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(text_module, "PIECE", 4)
    (tmp_path / "bad.txt").write_bytes(b"long enough for pieces \xff")
    (tmp_path / "good.txt").write_bytes(b"good")
    assert texts(tmp_path / "bad.txt", tmp_path / "good.txt", on_error="skip") == ["good"]


def test_inputs_that_do_not_exist_are_answered_with_the_nearest(tmp_path):
    (tmp_path / "hamlet.txt").write_text("x")
    with pytest.raises(DataError, match=r"did you mean “hamlet\.txt”"):
        Sources([tmp_path / "hamlte.txt"])
    with pytest.raises(DataError, match="did you mean “shakespeare”"):
        Sources(["shakespear"])
    with pytest.raises(DataError, match="No input"):
        Sources([])
    (tmp_path / "void").mkdir()
    with pytest.raises(DataError, match="holds no files"):
        Sources([tmp_path / "void"])


def test_input_without_any_text_says_why(tmp_path):
    (tmp_path / "a.jsonl").write_text("{\n")
    with pytest.raises(DataError, match=r"no text \(1 rows or files were left out\).*a\.jsonl:1"):
        texts(tmp_path / "a.jsonl", on_error="skip")
    (tmp_path / "e.txt").write_text("")
    with pytest.raises(DataError, match="is empty"):
        texts(tmp_path / "e.txt")


def test_the_shipped_corpus_has_a_name():
    documents = list(read_documents(["shakespeare"]))
    assert len(documents) > 40
    assert any("To be, or not to be" in document.text for document in documents)


def test_a_file_of_that_name_comes_first(places):
    (places / "shakespeare").write_text("mine")
    assert texts("shakespeare") == ["mine"]


def test_big_files_come_in_pieces_of_one_document(tmp_path, monkeypatch):
    monkeypatch.setattr(text_module, "PIECE", 5)
    (tmp_path / "a.txt").write_text("one long document")
    (tmp_path / "b.txt").write_text("two")
    sources = Sources([tmp_path / "a.txt", tmp_path / "b.txt"])
    documents = list(sources)
    assert [document.continued for document in documents] == [False, True, True, True, False]
    assert [d.text for d in whole_documents(documents)] == ["one long document", "two"]
    assert sources.report.documents == 2
    assert list(whole_documents([])) == []


@pytest.mark.parametrize("name", TABLES)
def test_documents_know_their_source_and_their_language(tmp_path, name):
    rows = [{"text": "Guten Tag", "language": "de"}, {"text": "Hello", "language": ""}]
    path = tmp_path / name
    write_rows(path, rows)
    found = [(d.text, d.source, d.language) for d in Sources([path])]
    assert found == [("Guten Tag", str(path), "de"), ("Hello", str(path), None)]
    assert [d.language for d in Sources([path], column="language")] == [None]
    (tmp_path / "a.txt").write_text("plain")
    (plain,) = Sources([tmp_path / "a.txt"])
    assert (plain.source, plain.language) == (str(tmp_path / "a.txt"), None)


def test_cleaning_goes_with_the_reading(tmp_path, monkeypatch):
    monkeypatch.setattr("coterie.data.text.PIECE", 4)
    (tmp_path / "a.txt").write_text("one  \n\n\n\ntwo")
    (tmp_path / "b.txt").write_text(" \n ")
    plain, sources = Sources([tmp_path]), Sources([tmp_path], clean=[Whitespace()])
    for _ in range(2):
        assert [(d.text, d.continued) for d in sources] == [("one\n\ntwo", False)]
    assert sources.report.documents == 1
    assert sources.report.notes == [f"{tmp_path / 'b.txt'}: holds documents that cleaning left out"]
    others = [Sources([tmp_path], clean=[Whitespace(blank_lines=n)]) for n in (1, 2)]
    assert sources.fingerprint() == others[0].fingerprint()
    different = {each.fingerprint() for each in (plain, sources, others[1])}
    assert len(different) == 3
    with pytest.raises(DataError, match="no text"):
        list(Sources([tmp_path / "b.txt"], clean=[Whitespace()]))


def test_texts_can_be_read_again_and_again(tmp_path):
    readable = texts_of([Document("a", "x"), Document("b", "y")])
    assert list(readable) == list(readable) == ["x", "y"]


def test_the_fingerprint_follows_content_not_place(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "t.txt").write_text("same")
    first = Sources([tmp_path / "a" / "t.txt"]).fingerprint()
    assert first == Sources([tmp_path / "b" / "t.txt"]).fingerprint()
    assert first != Sources([tmp_path / "a" / "t.txt"], column="x").fingerprint()
    (tmp_path / "b" / "t.txt").write_text("other")
    assert first != Sources([tmp_path / "b" / "t.txt"]).fingerprint()
    assert Sources(["shakespeare"]).fingerprint() == Sources(["shakespeare"]).fingerprint()


def test_patterns_are_expanded_and_saved_data_sets_lose_their_notes(tmp_path, monkeypatch):
    for name in ("a/x.md", "a/b/y.md", "a/b/z.txt", "a/.c/h.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    found = list(Sources(f"{tmp_path}/a/**/*.md"))
    assert sorted(each.text for each in found) == ["a/b/y.md", "a/x.md"]
    assert {each.origin for each in found} == {f"{tmp_path}/a/**/*.md"}
    with pytest.raises(DataError, match="No file fits the pattern"):
        Sources(f"{tmp_path}/*.pdf")
    saved = tmp_path / "saved" / "train"
    saved.mkdir(parents=True)
    content = pyarrow.table({"text": ["one", "two"]})
    with pyarrow.ipc.new_stream(saved / "data-00000-of-00001.arrow", content.schema) as out:
        out.write_table(content)
    for name in ("state.json", "dataset_info.json", "../dataset_dict.json"):
        (saved / name).write_text("{}")
    assert [each.text for each in Sources(tmp_path / "saved")] == ["one", "two"]


def test_of_many_files_named_one_by_one_the_folder_is_the_source(tmp_path):
    files = [tmp_path / f"{number}.txt" for number in range(20)]
    for file in files:
        file.write_text("x")
    assert {each.origin for each in Sources(files)} == {str(tmp_path)}
    assert len({each.origin for each in Sources(files[:9])}) == 9
