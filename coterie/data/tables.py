"""What all tables share: rows that are documents, rows that are not, and the column of the text.

Readers yield a `Document` for a good row and a `BadRow` for one that cannot be used, so that the
caller decides whether to stop or to go on. Empty texts are no documents and pass silently.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coterie.data.documents import Document
from coterie.data.reading import Reading, Tell
from coterie.data.text import read_text
from coterie.foundation.errors import DataError, nearest

DEFAULT_COLUMN = "text"
LANGUAGE_COLUMN = "language"
MAX_ROW = 1 << 25  # characters of one row; longer ones are reported instead of held in memory
_TYPES = {"NoneType": "null", "str": "text", "bool": "true or false", "dict": "an object"}


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used: where it is and why."""

    place: str
    problem: str


class ColumnError(DataError):
    """A question that the file cannot decide: which column, which delimiter."""


Rows = Iterator[Document | BadRow]


def choose_column(
    path: Path, reading: Reading, names: Collection[str], texts: Collection[str], tell: Tell
) -> str:
    """Return the column to read: the one asked for, else `text`, else the only one with text.

    Args:
        path: the file, for messages.
        reading: what was asked for.
        names: all columns of the file.
        texts: those that hold text somewhere.
        tell: called with a choice made by default.

    Raises:
        ColumnError: there is no such column, or several could be meant.
    """
    if reading.column is not None:
        if reading.column not in names:
            raise ColumnError(
                f"{path} has no column “{reading.column}”; {nearest(reading.column, names)}"
            )
        return reading.column
    if DEFAULT_COLUMN in names:
        return DEFAULT_COLUMN
    if len(texts) == 1:
        (only,) = texts
        tell(f"the documents are the column “{only}”, the only one with text")
        return only
    what = "" if texts else " None holds text."
    raise ColumnError(
        f"Which column of {path} holds the text?{what} {nearest('', texts or names)}",
        hint="Name it: --column NAME (or data.column=NAME).",
    )


def document_of(path: Path, place: str, row: dict[str, Any], column: str) -> Rows:
    """Yield the document of a row, a bad row, or nothing for an empty text.

    The row's `language` becomes the document's, if it is a text.
    """
    if column not in row:
        yield BadRow(place, f"no field “{column}”")
        return
    text = row[column]
    if not isinstance(text, str):
        kind = type(text).__name__
        yield BadRow(place, f"the field “{column}” holds {_TYPES.get(kind, kind)}, not text")
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # JSON can spell what is no character
        yield BadRow(place, f"the field “{column}” holds half of a surrogate pair")
        return
    if text:
        language = row.get(LANGUAGE_COLUMN)
        named = language if isinstance(language, str) and column != LANGUAGE_COLUMN else None
        yield Document(place, text, source=str(path), language=named or None)


def read_lines(path: Path, reading: Reading) -> Iterator[str | None]:
    """Yield the lines of a text file with their ends; `None` for one longer than `MAX_ROW`."""
    parts: list[str] = []
    length = 0
    for piece in read_text(path, reading.max_expansion, rows=True):
        first, *others = piece.split("\n")
        length += len(first)
        if length <= MAX_ROW:
            parts.append(first)
        if not others:
            continue
        yield "".join(parts) + "\n" if length <= MAX_ROW else None
        last = others.pop()
        for line in others:
            yield line + "\n" if len(line) <= MAX_ROW else None
        parts, length = [last], len(last)
    if length:
        yield "".join(parts) if length <= MAX_ROW else None


def fault_of(line: str) -> str | None:
    """Return why a line that was read leniently is no text, or `None` if it is."""
    if "\0" in line:
        return "a zero byte, which is no text"
    if line.isascii():
        return None
    try:
        line.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"not UTF-8: byte 0x{ord(line[error.start]) - 0xDC00:02X}"
    return None


def too_long() -> str:
    """Return what is wrong with a row that `read_lines` does not hold."""
    return f"longer than {MAX_ROW:,} characters; give such a text as a file of its own"
