"""Rows of CSV and TSV files: fields cut by a delimiter, a header, quotes that may span lines.

A quotation mark that is never closed makes the library read the rest of the file as one field. Such
a row is given up alone: the lines after it are read again, provided that each is a row by itself.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from coterie.data.delimiters import Layout, find_layout
from coterie.data.reading import Reading, Tell
from coterie.data.tables import MAX_ROW, BadRow, Rows, document_of, fault_of, read_lines, too_long
from coterie.foundation.errors import DataError


class _TooLongError(Exception):
    """A record does not end."""


@dataclass
class _Lines:
    """Hands lines to the library's reader and remembers those of the current record."""

    source: Iterator[str | None]
    read: int = 0  # lines so far
    taken: list[str] = field(default_factory=list)
    length: int = 0
    ended: bool = False

    def __iter__(self) -> Iterator[str]:
        for line in self.source:
            self.read += 1
            self.length += MAX_ROW + 1 if line is None else len(line)
            if line is not None:
                self.taken.append(line)
            if line is None or self.length > MAX_ROW:
                raise _TooLongError
            yield line
        self.ended = True

    def begin(self) -> None:
        self.taken, self.length = [], 0

    @property
    def first(self) -> int:
        """The number of the current record's first line."""
        return self.read - max(len(self.taken), 1) + 1


def read_separated(path: Path, reading: Reading, tell: Tell) -> Rows:
    """Yield the rows of a comma-, semicolon-, tab- or pipe-separated file.

    Raises:
        DataError: the file is empty or damaged.
        ColumnError: delimiter or column cannot be decided.
    """
    csv.field_size_limit(MAX_ROW)
    layout = find_layout(path, reading, tell)
    if layout is None:
        raise DataError(f"{path} holds no row.")
    header_due = reading.header
    for row in _records(path, read_lines(path, reading), layout):
        if isinstance(row, BadRow):
            yield row
            continue
        number, fields = row
        if header_due:
            header_due = False
            continue
        place = f"{path}:{number}"
        if len(fields) != len(layout.names):
            wanted = len(layout.names)
            what = "the header has" if reading.header else "the first row has"
            yield BadRow(place, f"{_count(len(fields))} where {what} {wanted}")
            continue
        record = dict(zip(layout.names, fields, strict=True))
        yield from document_of(path, place, record, layout.choice)


def _records(
    path: Path, source: Iterator[str | None], layout: Layout
) -> Iterator[tuple[int, list[str]] | BadRow]:
    """Yield the fields of each record with the number of its first line."""
    lines = _Lines(source)
    reader = layout.reader(lines)
    while not lines.ended:
        lines.begin()
        try:
            row = next(reader)
        except StopIteration:
            return
        except _TooLongError:
            reader = layout.reader(lines)
            yield from _mended(path, lines, layout, too_long())
            continue
        except csv.Error as error:
            yield from _mended(path, lines, layout, str(error))
            continue
        fault = next((fault for line in lines.taken if (fault := fault_of(line))), None)
        if fault:
            yield BadRow(f"{path}:{lines.first}", fault)
        elif len(lines.taken) > 1 and _swallowed(lines.taken, layout):
            yield from _mended(path, lines, layout, "a quotation mark opens that is never closed")
        elif row:
            yield lines.first, row


def _mended(
    path: Path, lines: _Lines, layout: Layout, problem: str
) -> Iterator[tuple[int, list[str]] | BadRow]:
    """Yield a broken record's first line as a bad row, and the others as the rows that they are.

    Where they are no rows by themselves, the whole record is one bad row.
    """
    first = lines.first
    rows = [_alone(line, layout) for line in lines.taken[1:]]
    widths = (0, len(layout.names))  # a blank line is a row of nothing
    if rows and all(row is not None and len(row) in widths for row in rows):
        yield BadRow(f"{path}:{first}", problem)
        for number, row in enumerate(rows, start=first + 1):
            if row:
                yield number, row
        return
    last = f" (lines {first:,} to {lines.read:,})" if lines.read > first else ""
    yield BadRow(f"{path}:{first}", problem + last)


def _alone(line: str, layout: Layout) -> list[str] | None:
    """Return the fields of a line taken by itself, or `None` if it is no record."""
    try:
        return next(layout.reader([line]), []) if fault_of(line) is None else None
    except csv.Error:
        return None


def _swallowed(taken: list[str], layout: Layout) -> bool:
    """Whether a field that spans lines holds rows: tab-separated ones seldom span any.

    A row whose first field is quoted comes from a program that quotes everything, and is believed.
    """
    if layout.delimiter != "tab" or len(layout.names) < 2 or taken[0].startswith('"'):
        return False
    return all(line.count("\t") == len(layout.names) - 1 for line in taken)


def _count(fields: int) -> str:
    return "1 field" if fields == 1 else f"{fields} fields"
