"""Rows of CSV and TSV: a broken one is named and does not take its neighbours along."""

from __future__ import annotations

import csv
import io
import random

import pytest

from coterie.data import Sources
from coterie.data import separated as module
from coterie.foundation.errors import DataError


def skipping(path, **options):
    sources = Sources([path], on_error="skip", **options)
    return [document.text for document in sources], sources.report.problems


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.csv"


def test_a_header_with_a_broken_quote_is_a_fault_of_the_file(path, tmp_path):
    for number, header in enumerate(['"text" x,n', '"text,n', 'a,"b" c\n']):
        path.write_text(f"{header}\nx,1\n")
        with pytest.raises(DataError, match=r"a\.csv:1: the first row cannot be read"):
            list(Sources([path]))
        (tmp_path / "good.txt").write_text("good")
        texts, problems = skipping(tmp_path)
        assert texts == ["good"], number
        assert "a.csv:1" in problems[0]


BROKEN = [
    # rows after the header “text,n”, the texts kept, the line named, the reason
    (['"x"y,1', "after,2"], ["before", "after"], ":3", "expected after"),
    (['"open,1', "one,2", "two,3"], ["before", "one", "two"], ":3", "unexpected end of data"),
    (['"open,1', "one,2", '"two",3', "z,4"], ["before", "one", "two", "z"], ":3", "expected after"),
    (
        ['"open,1', "no row at all", '"two"x,3', "z,4"],
        ["before", "z"],
        "(lines 3 to 5)",
        "expected",
    ),
    (["short", "after,2"], ["before", "after"], ":3", "1 field where the header has 2"),
    (["a,b,c", "after,2"], ["before", "after"], ":3", "3 fields where the header has 2"),
    (["caf\udce9,1", "after,2"], ["before", "after"], ":3", "not UTF-8: byte 0xE9"),
    (["good,\udce9", "after,2"], ["before", "after"], ":3", "not UTF-8: byte 0xE9"),
    (['"a\n\udce9",1', "after,2"], ["before", "after"], ":3", "not UTF-8"),
    (["a\0b,1", "after,2"], ["before", "after"], ":3", "zero byte"),
    (["x" * 300 + ",1", "after,2"], ["before", "after"], ":3", "longer than"),
    (['"' + "x\n" * 150 + '",1', "after,2"], ["before", "after"], ":", "longer than"),
]


@pytest.mark.parametrize(("rows", "kept", "place", "why"), BROKEN)
def test_a_broken_row_is_named_and_the_rest_is_kept(path, monkeypatch, rows, kept, place, why):
    monkeypatch.setattr(module, "MAX_ROW", 250)
    monkeypatch.setattr("coterie.data.tables.MAX_ROW", 250)
    content = "\n".join(["text,n", "before,0", *rows, ""])
    path.write_text(content, encoding="utf-8", errors="surrogateescape")
    texts, problems = skipping(path)
    if why == "longer than" and "\n" in rows[0]:
        # What such a field held beyond the bound is named too, none of it taken for rows.
        assert texts == kept
        assert why in problems[0]
        return
    assert texts == kept
    assert len(problems) == 1
    assert place in problems[0]
    assert why in problems[0]
    with pytest.raises(DataError, match=r"a\.csv:\d+: "):
        list(Sources([path]))


def test_fields_may_span_lines_and_be_huge(path):
    long = "word, “and”\n" * 40_000  # beyond the library's own limit of 131,072
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([["n", "text"], ["1", long], ["2", 'a "b"\nc'], ["3", ""]])
    assert skipping(path) == ([long, 'a "b"\nc'], [])


def test_fields_of_tab_separated_files_do_not_swallow_rows(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text('n\ttext\n0\t"quoted"\n1\t"Hello\n2\tyou\n3\tdear"\n4\tBye\n')
    texts, problems = skipping(path)
    assert texts == ["quoted", "you", 'dear"', "Bye"]
    assert problems == [f"{path}:3: a quotation mark opens that is never closed"]


def test_damage_in_the_middle_keeps_the_rows_before_it(tmp_path, monkeypatch):
    import gzip

    monkeypatch.setattr("coterie.data.text.PIECE", 100)
    rng = random.Random(1)
    rows = "".join(f"{n},{rng.random()}\n" for n in range(5000))
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(f"n,text\n{rows}".encode())[:-20_000])
    texts, problems = skipping(tmp_path / "a.csv.gz")
    assert 1000 < len(texts) < 4000
    assert len(problems) == 1
    assert "damaged" in problems[0]


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_written_is_read_back(path, seed):
    rng = random.Random(seed)
    alphabet = "ab ,;\t|\"\n'é→"
    for _ in range(40):
        delimiter = rng.choice(",;\t|")
        texts = [
            "".join(rng.choices(alphabet, k=rng.randrange(12))) for _ in range(rng.randrange(1, 9))
        ]
        sink = io.StringIO()
        writer = csv.writer(
            sink,
            delimiter=delimiter,
            quoting=csv.QUOTE_ALL,
            lineterminator=rng.choice(["\n", "\r\n"]),
        )
        writer.writerows([["id", "text"], *([str(n), text] for n, text in enumerate(texts))])
        path.write_text(sink.getvalue(), newline="")
        assert skipping(path, delimiter=delimiter) == ([t for t in texts if t], []) or not any(
            texts
        )
