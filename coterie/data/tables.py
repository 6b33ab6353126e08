"""Rows of JSONL, CSV and Parquet files: one document per row, from one column.

Readers yield a `Document` for a good row and a `BadRow` for one that cannot be used, so that the
caller decides whether to stop or to go on. Empty texts are no documents and pass silently.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from coterie.data.documents import Document
from coterie.data.text import read_text
from coterie.foundation.errors import DataError, nearest

_DEFAULT_COLUMN = "text"
_BATCH_ROWS = 256


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used: where it is and why."""

    place: str
    problem: str


class ColumnError(DataError):
    """A column that does not exist or cannot be guessed: a matter of the request, not of a row."""


Rows = Iterator[Document | BadRow]


def read_jsonl(path: Path, column: str | None) -> Rows:
    """Yield the rows of a file with one JSON object per line.

    Raises:
        DataError: the file is empty or damaged, or the first good row lacks the column.
    """
    chosen = None
    number = 0
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            yield BadRow(place, f"not JSON: {error.msg} at column {error.colno}")
            continue
        except (ValueError, RecursionError) as error:  # a number too long, brackets too deep
            yield BadRow(place, f"not usable JSON: {error}")
            continue
        if not isinstance(row, dict):
            yield BadRow(place, f"not a JSON object but {type(row).__name__}")
            continue
        if chosen is None:
            texts = [name for name, value in row.items() if isinstance(value, str)]
            chosen = choose_column(path, column, list(row), texts)
        yield from _document(place, row, chosen)
    if not number:
        raise DataError(f"{path} is empty.")


def read_csv(path: Path, column: str | None) -> Rows:
    """Yield the rows of a comma-separated (`.csv`) or tab-separated (`.tsv`) file with a header.

    Raises:
        DataError: the file is empty or damaged, or it lacks the column.
    """
    csv.field_size_limit(sys.maxsize)  # the library's default refuses long texts
    delimiter = "\t" if ".tsv" in path.suffixes else ","
    reader = csv.reader(_lines(path), delimiter=delimiter, strict=True)
    header = next(reader, None)
    if header is None:
        raise DataError(f"{path} is empty.")
    chosen = choose_column(path, column, header, header)
    while True:
        place = f"{path}:{reader.line_num + 1}"
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield BadRow(place, str(error))
            continue
        if not row:
            continue
        if len(row) != len(header):
            yield BadRow(place, f"{len(row)} fields where the header has {len(header)}")
            continue
        yield from _document(place, dict(zip(header, row, strict=True)), chosen)


def read_parquet(path: Path, column: str | None) -> Rows:
    """Yield the rows of a Parquet file, a few hundred at a time.

    Raises:
        DataError: the file is damaged, or it lacks the column, or the column holds no text.
    """
    try:
        with parquet.ParquetFile(path, memory_map=True, pre_buffer=False) as file:
            schema = file.schema_arrow
            texts = [field.name for field in schema if _is_text(field.type)]
            chosen = choose_column(path, column, schema.names, texts)
            if chosen not in texts:
                raise ColumnError(
                    f"The column “{chosen}” of {path} holds {schema.field(chosen).type}, not text; "
                    f"{nearest(chosen, texts)}"
                )
            number = 0
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=[chosen]):
                for value in batch.column(0).to_pylist():
                    number += 1
                    yield from _document(f"{path}#{number}", {chosen: value}, chosen)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a Parquet file that can be read: {error}") from error


READERS: dict[str, Callable[[Path, str | None], Rows]] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": read_parquet,
}


def choose_column(path: Path, column: str | None, names: list[str], texts: list[str]) -> str:
    """Return the column to read: the one asked for, else `text`, else the only one with text.

    Raises:
        ColumnError: there is no such column, or several could be meant.
    """
    if column is not None:
        if column not in names:
            raise ColumnError(f"{path} has no column “{column}”; {nearest(column, names)}")
        return column
    if _DEFAULT_COLUMN in names:
        return _DEFAULT_COLUMN
    if len(texts) == 1:
        return texts[0]
    raise ColumnError(
        f"Which column of {path} holds the text? {nearest('', texts or names)}",
        hint="Name it: --column NAME (or data.column=NAME).",
    )


def _document(place: str, row: dict[str, Any], column: str) -> Rows:
    """Yield the document of a row, a bad row, or nothing for an empty text."""
    if column not in row:
        yield BadRow(place, f"no field “{column}”")
        return
    text = row[column]
    if not isinstance(text, str):
        yield BadRow(place, f"the field “{column}” holds {type(text).__name__}, not text")
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # JSON can spell what is no character
        yield BadRow(place, f"the field “{column}” holds half of a surrogate pair")
        return
    if text:
        yield Document(place, text)


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file with their ends."""
    rest = ""
    for piece in read_text(path):
        lines = (rest + piece).split("\n")
        rest = lines.pop()
        for line in lines:
            yield line + "\n"
    if rest:
        yield rest


def _is_text(kind: pyarrow.DataType) -> bool:
    if pyarrow.types.is_dictionary(kind):
        kind = kind.value_type
    return (
        pyarrow.types.is_string(kind)
        or pyarrow.types.is_large_string(kind)
        or pyarrow.types.is_string_view(kind)
    )
