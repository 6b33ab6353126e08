"""Rows of Parquet and Arrow files, a few hundred at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.ipc
from pyarrow import parquet, types

from coterie.data.columns import Choice, Column
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


def row_groups(path: Path) -> int | None:
    """Return how many row groups a Parquet file has; None for another file, or one damaged."""
    if kind_of(path).content != "parquet":
        return None
    with contextlib.suppress(pyarrow.ArrowException, OSError):
        return parquet.read_metadata(path).num_row_groups
    return None


def read_parquet(path: Path, reading: Reading, tell: Tell, group: int | None = None) -> Rows:
    """Yield the rows of a Parquet file, or of one group; one that is damaged is one bad row.

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
            choice = _choice(path, reading, file.schema_arrow, tell)
            first = 1
            for number in range(file.num_row_groups):
                if group in (None, number):
                    yield from _group(path, file, number, choice, first)
                first += file.metadata.row_group(number).num_rows
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a Parquet file that can be read: {error}") from error


def read_arrow(path: Path, reading: Reading, tell: Tell) -> Rows:
    """Yield the rows of an Arrow file, of which saved data sets consist.

    Raises:
        DataError: the file is damaged; what was read before is handed out.
        ColumnError: it lacks the column, or the column holds no text.
    """
    number = 0
    try:
        with pyarrow.memory_map(str(path)) as file, _opened(file) as batches:
            choice = _choice(path, reading, batches.schema, tell)
            for batch in batches:
                for row in rows_of(batch):
                    number += 1
                    place = f"{path}#{number}"
                    if isinstance(row, UnicodeDecodeError):
                        yield BadRow(place, f"not UTF-8: byte 0x{row.object[row.start]:02X}")
                    else:
                        yield from document_of(path, place, row, choice)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is not an Arrow file that can be read: {error}") from error


@contextlib.contextmanager
def _opened(file: pyarrow.NativeFile) -> Iterator[Any]:
    """Yield the batches of a file that is a stream, or that ends with an index of them."""
    begun = file.read(6)
    file.seek(0)
    if begun != b"ARROW1":
        with pyarrow.ipc.open_stream(file) as stream:
            yield stream
        return
    with pyarrow.ipc.open_file(file) as indexed:
        yield _Indexed(indexed)


class _Indexed:
    """The batches of a file with an index, one by one."""

    def __init__(self, file: pyarrow.ipc.RecordBatchFileReader) -> None:
        self.schema, self._file = file.schema, file

    def __iter__(self) -> Iterator[pyarrow.RecordBatch]:
        return map(self._file.get_batch, range(self._file.num_record_batches))


def _choice(path: Path, reading: Reading, schema: pyarrow.Schema, tell: Tell) -> Choice:
    texts = [field.name for field in schema if _is_text(field.type)]
    chosen = choose_column(path, reading, schema.names, texts, tell)
    for name in chosen.needs(schema.names):
        if schema.names.count(name) > 1:
            raise ColumnError(f"{path} has several columns called “{name}”.")
    if isinstance(chosen, Column) and chosen.name in schema.names:
        kind = schema.field(chosen.name).type
        if chosen.name not in texts and not _is_bytes(kind):
            raise ColumnError(
                f"The column “{chosen.name}” of {path} holds {kind}, not text; "
                f"{nearest(chosen.name, texts)}"
            )
    return chosen


def _group(path: Path, file: parquet.ParquetFile, group: int, choice: Choice, first: int) -> Rows:
    """Yield the documents of one row group, whose first row has the number `first`."""
    number = first
    columns = choice.needs(file.schema_arrow.names)
    fields = [field for field in file.schema_arrow if field.name == LANGUAGE_COLUMN]
    if len(fields) == 1 and LANGUAGE_COLUMN not in columns and _is_text(fields[0].type):
        columns.append(LANGUAGE_COLUMN)
    try:
        for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns):
            for row in rows_of(batch):
                place = f"{path}#{number}"
                number += 1
                if isinstance(row, UnicodeDecodeError):
                    byte = row.object[row.start]
                    yield BadRow(place, f"not UTF-8: byte 0x{byte:02X}")
                else:
                    yield from document_of(path, place, row, choice)
    except (pyarrow.ArrowException, OSError) as error:
        last = first + file.metadata.row_group(group).num_rows - 1
        yield BadRow(f"{path}#{number}", f"damaged from here to row {last}: {error}")


def rows_of(batch: pyarrow.RecordBatch) -> Iterator[dict[str, Any] | UnicodeDecodeError]:
    """Yield the rows of a batch; where a text in one is not UTF-8, the error that says so."""
    names = batch.schema.names
    for values in zip(*(_values(column) for column in batch.columns), strict=True):
        broken = [value for value in values if isinstance(value, UnicodeDecodeError)]
        yield broken[0] if broken else dict(zip(names, values, strict=True))


def _values(column: pyarrow.Array) -> Iterator[Any]:
    """Yield the values of a column, texts decoded; where one is not UTF-8, the error."""
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not (_is_text(column.type) or _is_bytes(column.type)):
        for value in column:
            try:
                yield value.as_py()
            except UnicodeDecodeError as error:  # in a list, or in an object
                yield error
        return
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
