"""What all tables share: rows that are documents, rows that are not, and the column of the text.

Readers yield a `Document` for a good row and a `BadRow` for one that cannot be used, so that the
caller decides whether to stop or to go on. Empty texts are no documents and pass silently.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coterie.data.columns import Choice, Column, NoTextError, conversation_in
from coterie.data.documents import Document
from coterie.data.reading import Reading, Tell
from coterie.data.text import read_text
from coterie.foundation.errors import DataError, nearest

DEFAULT_COLUMN = "text"
LANGUAGE_COLUMN = "language"
MAX_ROW = 1 << 25  # characters of one row; longer ones are reported instead of held in memory


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used: where it is and why."""

    place: str
    problem: str


class ColumnError(DataError):
    """A question that the file cannot decide: which column, which delimiter."""


Rows = Iterator[Document | BadRow]


def choose_column(
    path: Path | str, reading: Reading, names: Collection[str], texts: Collection[str], tell: Tell
) -> Choice:
    """Return what to read: the template or column asked for, else `text`, conversations, or the
    only column with text.

    Args:
        path: the file, for messages.
        reading: what was asked for.
        names: all columns of the file.
        texts: those that hold text somewhere.
        tell: called with a choice made by default.

    Raises:
        ColumnError: there is no such column, or several could be meant.
    """
    asked = reading.choice
    if asked is not None:
        for name in asked.needs(names):
            if name not in names:
                raise ColumnError(f"{path} has no column “{name}”; {nearest(name, names)}")
        return asked
    if DEFAULT_COLUMN in names:
        return Column(DEFAULT_COLUMN)
    if (conversation := conversation_in(names)) is not None:
        columns = ", ".join(f"“{name}”" for name in conversation.needs(names))
        tell(f"the documents are conversations, written out from {columns}")
        return conversation
    if len(texts) == 1:
        (only,) = texts
        tell(f"the documents are the column “{only}”, the only one with text")
        return Column(only)
    what = "" if texts else " None holds text."
    raise ColumnError(
        f"Which column of {path} holds the text?{what} {nearest('', texts or names)}",
        hint="Name it: --column NAME (or data.column=NAME).",
    )


def document_of(path: Path | str, place: str, row: dict[str, Any], choice: Choice) -> Rows:
    """Yield the document of a row, a bad row, or nothing for an empty text.

    The row's `language` becomes the document's, if it is a text.
    """
    try:
        text, messages = choice.read(row)
        text.encode("utf-8")
    except NoTextError as error:
        yield BadRow(place, str(error))
        return
    except UnicodeEncodeError:  # JSON can spell what is no character
        name = f"the field “{choice.name}”" if isinstance(choice, Column) else "it"
        yield BadRow(place, f"{name} holds half of a surrogate pair")
        return
    if text:
        language = row.get(LANGUAGE_COLUMN)
        read = LANGUAGE_COLUMN in choice.needs(row)
        named = language if isinstance(language, str) and not read else None
        yield Document(place, text, source=str(path), language=named or None, messages=messages)


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
