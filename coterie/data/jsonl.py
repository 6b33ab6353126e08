"""Rows of files with one JSON object per line."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coterie.data.columns import Choice, Column, has
from coterie.data.reading import Reading, Tell
from coterie.data.tables import (
    DEFAULT_COLUMN,
    BadRow,
    Rows,
    choose_column,
    document_of,
    fault_of,
    read_lines,
    too_long,
)
from coterie.foundation.errors import DataError


def read_jsonl(path: Path, reading: Reading, tell: Tell) -> Rows:
    """Yield the rows of a file with one JSON object per line.

    Which column is read is decided by the whole file: the wanted one if any row has it.

    Raises:
        DataError: the file is empty or damaged.
        ColumnError: no row has the column, or several columns could be meant.
    """
    chosen = None
    for row in object_rows(path, reading):
        if isinstance(row, BadRow):
            yield row
            continue
        place, fields = row
        if chosen is None:
            wanted = reading.choice or Column(DEFAULT_COLUMN)
            chosen = wanted if _given(wanted, fields) else _of_all(path, reading, wanted, tell)
        yield from document_of(path, place, fields, chosen)


def _given(wanted: Choice, fields: dict[str, Any]) -> bool:
    """Whether a row has a wanted column; whether it has a template's is its own matter."""
    return not isinstance(wanted, Column) or has(fields, wanted.name)


def _of_all(path: Path, reading: Reading, wanted: Choice, tell: Tell) -> Choice:
    """Return the column to read, where the first row does not say it, after reading all rows."""
    names: dict[str, None] = {}  # in order of their first appearance
    texts: dict[str, None] = {}
    with contextlib.suppress(DataError):  # damage is reported where it is reached
        for row in object_rows(path, reading):
            fields = {} if isinstance(row, BadRow) else row[1]
            if _given(wanted, fields):
                return wanted
            names.update(dict.fromkeys(fields))
            texts.update((name, None) for name, value in fields.items() if type(value) is str)
    return choose_column(path, reading, names, texts, tell)


def object_rows(path: Path, reading: Reading) -> Iterator[tuple[str, dict[str, Any]] | BadRow]:
    """Yield each row with its place, blank lines left aside."""
    for number, line in enumerate(read_lines(path, reading), start=1):
        place = f"{path}:{number}"
        if line is None:
            yield BadRow(place, too_long())
        elif line.strip():
            row = _parse(line)
            yield BadRow(place, row) if isinstance(row, str) else (place, row)


def _parse(line: str) -> dict[str, Any] | str:
    """Return the object that a line holds, or what is wrong with it."""
    if fault := fault_of(line):
        return fault
    latest: list[tuple[str, Any]] = []  # objects are handed over innermost first

    def keep(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal latest
        latest = pairs
        return dict(pairs)

    try:
        row = json.loads(line, object_pairs_hook=keep)
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at column {error.colno}"
    except (ValueError, RecursionError) as error:  # a number too long, brackets too deep
        return f"not usable JSON: {error}"
    if not isinstance(row, dict):
        return f"not a JSON object but {type(row).__name__}"
    if len(row) < len(latest):
        names = [name for name, _ in latest]
        twice = next(name for name in names if names.count(name) > 1)
        return f"the field “{twice}” is given twice"
    return row
