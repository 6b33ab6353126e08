"""Delimiters are found by looking, told, or asked about; so is a first row that names nothing."""

from __future__ import annotations

import pytest

from coterie.data import Sources
from coterie.foundation.errors import DataError


@pytest.fixture
def read(tmp_path):
    """Write a table and return its texts and what was told about it."""

    def read(content, name="a.csv", **options):
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        sources = Sources([path], **options)
        texts = [document.text for document in sources]
        return texts, [note.removeprefix(f"{path}: ") for note in sources.report.notes]

    return read


TOLD = "the fields are separated by “{}”, as its rows are"
FOUND = [
    ("id;author;text\n1;A;x, y\n2;B;z\n", "a.csv", ["x, y", "z"], "semicolon"),
    ("id\ttext\n1\tx, y\n", "a.csv", ["x, y"], "tab"),
    ("id|text\n1|x; y\n", "A.TXT.CSV", ["x; y"], "pipe"),
    ("id,text\n1,x\n", "a.tsv", ["x"], "comma"),
    ("id\ttext\n1\tx, y\n", "d.TSV", ["x, y"], None),
    ("id,text\n1,x;y\n", "c.tsv.clean.csv", ["x;y"], None),
    ('id;"a;b";text\n1;"x;y";"z\nz"\n', "a.csv", ["z\nz"], "semicolon"),
    ("id;price;text\n1;2,5;x\n2;3,7;y\n", "a.csv", ["x", "y"], "semicolon"),
    ("a,b;text\n1,2;x\n", "a.csv", ["x"], "semicolon"),  # both fit; one names the text
    ("text\nHello; you\nBye\n", "a.csv", ["Hello; you", "Bye"], None),
    ("text\nHello, you\nBye\n", "a.tsv", ["Hello, you", "Bye"], None),
]


@pytest.mark.parametrize(("content", "name", "texts", "told"), FOUND)
def test_the_delimiter_is_found_and_told(read, content, name, texts, told):
    assert read(content, name) == (texts, [TOLD.format(told)] if told else [])


ASKED = [
    ("story\nHello; you\nBye\n", "a.csv", "a delimiter cuts .semicolon.", "delimiter=comma"),
    ("story\nHello, you\nBye\n", "a.tsv", "a delimiter cuts .comma.", "delimiter=tab"),
    ("text\na;b;c\nd;e;f\n", "a.csv", "a delimiter cuts .semicolon.", "delimiter=comma"),
    ("story\na,b;c\n", "a.csv", "a delimiter cuts .comma, semicolon.", "delimiter=tab"),
    ("a,b;c\n1,2;3\n4,5;6\n", "a.csv", "could be: comma, semicolon", "delimiter=comma"),
    ("title; more\nfoo\nbar\n", "a.csv", "could be: semicolon", "delimiter=semicolon"),
]


@pytest.mark.parametrize(("content", "name", "why", "way_out"), ASKED)
def test_what_the_file_does_not_decide_is_asked(read, content, name, why, way_out):
    for rule in ("stop", "skip"):
        with pytest.raises(DataError, match=why) as caught:
            read(content, name, on_error=rule)
        assert f"data.{way_out}" in caught.value.hint


def test_what_the_user_says_holds(read):
    assert read("story\nHello; you\nBye\n", delimiter="comma")[0] == ["Hello; you", "Bye"]
    assert read("a;text\n1;x\n", delimiter=";") == (["x"], [])
    assert read("a\ttext\n1\tx\n", delimiter="\\t")[0] == ["x"]
    with pytest.raises(DataError, match=r"no column “text”; .*choices: a;text"):
        read("a;text\n1;x\n", delimiter="comma", column="text")
    with pytest.raises(DataError, match="no delimiter “semi”; did you mean “semicolon”"):
        read("x", delimiter="semi")


NO_NAMES = [
    "Once upon a time there was a king who had three sons.\nThe king died.\n",
    "1,3.5\n2,4.5\n",
    "Hello there!\nBye\n",
    ",a\n1,x\n",
]


@pytest.mark.parametrize("content", NO_NAMES)
def test_a_first_row_that_reads_like_text_is_asked_about(read, content):
    with pytest.raises(DataError, match=r"Does the first row of .* name the columns") as caught:
        read(content)
    assert "data.header=false" in caught.value.hint


def test_a_table_without_names_loses_no_row(read):
    assert read("Hello there!\nBye\n", header=False)[0] == ["Hello there!", "Bye"]
    assert read("1,Hello\n2,Bye\n", header=False, column="1") == (["Hello", "Bye"], [])
    with pytest.raises(DataError, match=r"Which column .*choices: 0, 1"):
        read("1,Hello\n2,Bye\n", header=False)
    with pytest.raises(DataError, match=r"a\.csv:2: 1 field where the first row has 2"):
        read("1,Hello\nBye\n", header=False, column="1")


def test_a_column_that_only_its_place_chose_is_told(read):
    told = "the documents are the column “story”, the only one with text"
    assert read("story\nonce\n") == (["once"], [told])


def test_names_may_stand_among_blanks_and_must_be_clear(read):
    assert read("id, text\n1,x\n")[0] == ["x"]
    assert read("\n\nid,text\n1,x\n")[0] == ["x"]
    with pytest.raises(DataError, match="several columns called “text”"):
        read("text,text\na,b\n")


def test_quotes_in_tab_separated_text_are_text_where_they_enclose_nothing(read):
    told = "quotation marks are part of the text, as they do not enclose fields"
    assert read('id\ttext\n1\t"Hello" she said\n2\tBye\n', "a.tsv") == (
        ['"Hello" she said', "Bye"], [told],
    )  # fmt: skip
    assert read('id\ttext\n1\t"Hello\t""you"""\n', "a.tsv") == (['Hello\t"you"'], [])


def test_only_the_beginning_decides(read, monkeypatch):
    monkeypatch.setattr("coterie.data.delimiters._PROBED_CHARACTERS", 40)
    rows = "id,text\n" + "1,x\n" * 20 + '2,"y;\n' + "z\n" * 30 + '"\n'
    assert len(read(rows)[0]) == 21
