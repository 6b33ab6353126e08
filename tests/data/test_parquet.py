"""Parquet: every way to hold text, and rows or groups of rows that cannot be used."""

from __future__ import annotations

import gzip

import pyarrow
import pytest
from pyarrow import parquet

from coterie.data import Sources
from coterie.foundation.errors import DataError

TEXTS = ["one", "two → 🙂", "three"]


@pytest.fixture
def write(tmp_path):
    def write(columns, **options):
        parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet", **options)
        return tmp_path / "a.parquet"

    return write


def skipping(path, **options):
    sources = Sources([path], on_error="skip", **options)
    return [document.text for document in sources], sources.report


KINDS = [
    pyarrow.string(), pyarrow.large_string(), pyarrow.string_view(), pyarrow.binary(),
    pyarrow.large_binary(), pyarrow.binary_view(),
    pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_text_is_read_however_it_is_kept(write, kind):
    path = write({"n": [1, 2, 3], "text": pyarrow.array(TEXTS).cast(kind)})
    assert skipping(path)[0] == TEXTS


def test_the_only_column_with_text_is_told(write):
    texts, report = skipping(write({"n": [1, 2, 3], "story": TEXTS}))
    assert texts == TEXTS
    assert "the column “story”, the only one with text" in report.notes[0]
    with pytest.raises(DataError, match=r"Which column .*choices: a, b"):
        skipping(write({"a": TEXTS, "b": TEXTS}))


@pytest.mark.parametrize("values", [[["a"]], [{"a": "b"}], [1], [True]])
def test_a_column_of_anything_else_is_refused(write, values):
    path = write({"text": pyarrow.array(values), "other": ["x"]})
    with pytest.raises(DataError, match=r"The column “text” of .* holds .*, not text"):
        skipping(path)
    path = write({"deep": pyarrow.array(values)})
    with pytest.raises(DataError, match=r"None holds text. choices: deep"):
        skipping(path)


def test_rows_that_are_null_or_not_utf8_are_named(write):
    path = write({"text": pyarrow.array([b"a", None, b"caf\xe9", b"", b"b"])})
    texts, report = skipping(path)
    assert texts == ["a", "b"]
    assert report.problems == [
        f"{path}#2: the field “text” holds null, not text",
        f"{path}#3: not UTF-8: byte 0xE9",
    ]


def test_text_with_wrong_bytes_costs_its_row_alone(write):
    wrong = pyarrow.Array.from_buffers(
        pyarrow.string(), 2, [None, *pyarrow.array([b"ok", b"\xff"]).buffers()[1:]]
    )
    texts, report = skipping(write({"text": wrong}))
    assert texts == ["ok"]
    assert "#2: not UTF-8: byte 0xFF" in report.problems[0]


def test_a_damaged_group_of_rows_costs_itself_alone(write):
    rows = [f"row {n:04}" for n in range(3000)]
    path = write(
        {"text": rows}, row_group_size=1000, compression="none", use_dictionary=False,
        write_page_checksum=True,
    )  # fmt: skip
    content = path.read_bytes()
    path.write_bytes(content.replace(b"row 1500", b"ROW 1500"))
    texts, report = skipping(path)
    assert texts == rows[:1000] + rows[2000:]
    assert report.skipped == 1
    assert "#1001: damaged from here to row 2000" in report.problems[0]
    with pytest.raises(DataError, match="#1001: damaged"):
        list(Sources([path]))


def test_a_compressed_or_cut_file_is_refused_in_words(write, tmp_path):
    path = write({"text": TEXTS})
    (tmp_path / "b.parquet.gz").write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(DataError, match="compressed Parquet file, which is not read"):
        list(Sources([tmp_path / "b.parquet.gz"]))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="not a Parquet file that can be read"):
        list(Sources([path]))
