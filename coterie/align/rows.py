"""Rows of JSONL and Parquet files: conversations, preferences, marks, in the usual layouts.

Conversations are `messages` or ShareGPT's `conversations`, or a question and its answer
(`prompt`/`completion`, `instruction`/`input`/`output`). Preferences have `chosen` and `rejected`,
each a text after `prompt`, or whole conversations; marks have `completion` and a true or false
`label`. What is wrong with a row is told with its file and line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyarrow
from pyarrow import parquet

from coterie.data.columns import NoTextError, Turns, conversation_in
from coterie.data.documents import Message as Said
from coterie.data.jsonl import object_rows
from coterie.data.parquet import rows_of
from coterie.data.reading import Reading
from coterie.data.tables import BadRow
from coterie.foundation.errors import CoterieError, DataError

T = TypeVar("T")
Messages = list[dict[str, str]]
_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant",
          "chatgpt": "assistant"}  # fmt: skip
_MARKS = ("label", "desirable")


class Row(NamedTuple):
    """A row's values, and where it stands: `file:line`."""

    place: str
    values: dict[str, Any]


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file.

    Raises:
        DataError: there is no such file, it is neither JSONL nor Parquet, or a row cannot be read.
    """
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    ending = path.name.removesuffix(".gz").removesuffix(".zst").rpartition(".")[2].lower()
    if ending in ("parquet", "pq"):
        yield from _parquet(path)
        return
    if ending not in ("jsonl", "ndjson", "json"):
        raise DataError(f"{path} is neither JSON lines (.jsonl) nor Parquet (.parquet).")
    for row in object_rows(path, Reading()):
        if isinstance(row, BadRow):
            raise DataError(f"{row.place}: {row.problem}.")
        yield Row(*row)


def _parquet(path: Path) -> Iterator[Row]:
    number = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches():
            for values in rows_of(batch):
                number += 1
                if isinstance(values, UnicodeDecodeError):
                    raise DataError(f"{path}#{number}: not UTF-8.")
                yield Row(f"{path}#{number}", values)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}#{number + 1}: damaged: {error}") from error


def each_row(path: Path, read: Callable[[dict[str, Any]], T]) -> list[T]:
    """Return what `read` makes of each row.

    Raises:
        DataError: a row is of no use, told with its place; or there is none.
    """
    found = []
    for place, values in read_rows(path):
        try:
            found.append(read(values))
        except (NoTextError, CoterieError) as error:
            message = error.message if isinstance(error, CoterieError) else str(error)
            raise DataError(f"{place}: {message.rstrip('.')}.") from error
    if not found:
        raise DataError(f"{path} has no rows.")
    return found


def messages_of(values: dict[str, Any]) -> Messages:
    """Return a row's conversation.

    Raises:
        NoTextError: it has none.
    """
    given = {name: value for name, value in values.items() if value is not None}
    kind = conversation_in(given)
    if kind is None:
        raise NoTextError(
            f"no conversation among the fields {', '.join(values) or 'none'}: messages, "
            "conversations, prompt and completion, or instruction and output are known"
        )
    if not isinstance(kind, Turns):
        asked = given.get(kind.asked)
        if isinstance(asked, list):  # the prompt is a conversation itself
            answer = given[kind.answered]
            told = answer if isinstance(answer, list) else [_answer(answer)]
            return _plain(Turns("turns").read({"turns": [*asked, *told]})[1])
    return _plain(kind.read(given)[1])


def _plain(messages: Sequence[Said]) -> Messages:
    return [{"role": _ROLES.get(m.role, m.role), "content": m.text} for m in messages]


def _answer(text: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def _prompted(values: dict[str, Any], name: str) -> Messages:
    """Return the conversation that ends with a field: a text after the prompt, or messages."""
    answer = values.get(name)
    if isinstance(answer, list) and values.get("prompt") is None:
        return messages_of({"messages": answer})
    if answer is None:
        raise NoTextError(f"no field “{name}”")
    if values.get("prompt") is None:
        raise NoTextError("no field “prompt”")
    return messages_of({"prompt": values["prompt"], "completion": answer})


def pair_of(values: dict[str, Any]) -> tuple[Messages, Messages]:
    """Return the preferred conversation and the other one.

    Raises:
        NoTextError: the row has no such two.
    """
    return _prompted(values, "chosen"), _prompted(values, "rejected")


def marked_of(values: dict[str, Any]) -> tuple[Messages, bool]:
    """Return a conversation, and whether it is marked as wanted.

    Raises:
        NoTextError: the row has no conversation or no mark.
    """
    name = next((name for name in _MARKS if name in values), None)
    mark = None if name is None else values[name]
    if not isinstance(mark, bool):
        raise NoTextError("no field “label” that is true or false")
    return messages_of(values), mark
