"""Rows of Parquet files, a few hundred at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow
from pyarrow import parquet, types

from coterie.data.kinds import kind_of
from coterie.data.reading import Reading, Tell
from coterie.data.tables import (
    LANGUAGE_COLUMN,
    BadRow,
    ColumnError,
    Rows,
    choose_column,
    document_of,
)
from coterie.foundation.errors import DataError, nearest

_BATCH_ROWS = 256


def read_parquet(path: Path, reading: Reading, tell: Tell) -> Rows:
    """Yield the rows of a Parquet file; a row group that is damaged is one bad row.

    Raises:
        DataError: the file is damaged as a whole.
        ColumnError: it lacks the column, or the column holds no text.
    """
    if kind_of(path).packings:
        raise DataError(
            f"{path} is a compressed Parquet file, which is not read: Parquet compresses itself.",
            hint="Unpack it first.",
        )
    try:
        with parquet.ParquetFile(
            path, memory_map=True, pre_buffer=False, page_checksum_verification=True
        ) as file:
            column = _column(path, reading, file.schema_arrow, tell)
            first = 1
            for group in range(file.num_row_groups):
                yield from _group(path, file, group, column, first)
                first += file.metadata.row_group(group).num_rows
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a Parquet file that can be read: {error}") from error


def _column(path: Path, reading: Reading, schema: pyarrow.Schema, tell: Tell) -> str:
    texts = [field.name for field in schema if _is_text(field.type)]
    chosen = choose_column(path, reading, schema.names, texts, tell)
    if schema.names.count(chosen) > 1:
        raise ColumnError(f"{path} has several columns called “{chosen}”.")
    kind = schema.field(chosen).type
    if chosen not in texts and not _is_bytes(kind):
        raise ColumnError(
            f"The column “{chosen}” of {path} holds {kind}, not text; {nearest(chosen, texts)}"
        )
    return chosen


def _group(path: Path, file: parquet.ParquetFile, group: int, column: str, first: int) -> Rows:
    """Yield the documents of one row group, whose first row has the number `first`."""
    number = first
    columns = [column]
    fields = [field for field in file.schema_arrow if field.name == LANGUAGE_COLUMN != column]
    if len(fields) == 1 and _is_text(fields[0].type):
        columns.append(LANGUAGE_COLUMN)
    try:
        for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns):
            given = [_values(batch.column(name)) for name in columns]
            for value, *language in zip(*given, strict=True):
                place = f"{path}#{number}"
                number += 1
                if isinstance(value, UnicodeDecodeError):
                    byte = value.object[value.start]
                    yield BadRow(place, f"not UTF-8: byte 0x{byte:02X}")
                else:
                    row = dict(zip(columns, [value, *language], strict=True))
                    yield from document_of(path, place, row, column)
    except (pyarrow.ArrowException, OSError) as error:
        last = first + file.metadata.row_group(group).num_rows - 1
        yield BadRow(f"{path}#{number}", f"damaged from here to row {last}: {error}")


def _values(column: pyarrow.Array) -> Iterator[str | UnicodeDecodeError | None]:
    """Yield the texts of a column; where one is not UTF-8, the error that says so."""
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if types.is_string_view(column.type) or types.is_binary_view(column.type):
        column = column.cast(pyarrow.large_binary())
    if not _is_bytes(column.type):
        whole = pyarrow.large_binary() if types.is_large_string(column.type) else pyarrow.binary()
        column = column.cast(whole)
    for value in column.to_pylist():
        try:
            yield value if value is None else value.decode("utf-8")
        except UnicodeDecodeError as error:
            yield error


def _is_text(kind: pyarrow.DataType) -> bool:
    if types.is_dictionary(kind):
        kind = kind.value_type
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _is_bytes(kind: pyarrow.DataType) -> bool:
    """Whether a column holds bytes: writers of old did not mark theirs as text."""
    if types.is_dictionary(kind):
        kind = kind.value_type
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)
