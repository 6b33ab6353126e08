"""Which part of a row is the text: a column, one inside an object, several in a template, a chat.

Each kind says which columns of a table it reads, and gives the text of a row with the messages that
it was written from, if it was a conversation.
"""

from __future__ import annotations

import string
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from coterie.data.documents import Message
from coterie.foundation.errors import DataError

_TYPES = {"NoneType": "null", "str": "text", "bool": "true or false", "dict": "an object",
          "list": "a list"}  # fmt: skip
_MISSING = object()
_TURNS = ("messages", "conversations", "conversation")
_ROLE, _CONTENT = ("role", "from", "speaker"), ("content", "value", "text")
_ASKED = ("instruction", "prompt", "question")
_FURTHER = ("input", "context")
_ANSWERED = ("output", "response", "completion", "answer")


class NoTextError(Exception):
    """A row has no text where it should be; says why."""


@dataclass(frozen=True)
class Column:
    """One column, or a field of the objects in one: `meta.text`."""

    name: str

    def needs(self, names: Collection[str]) -> list[str]:
        """Return which of a table's columns are read."""
        first = self.name.partition(".")[0]
        return [first if first in names and self.name not in names else self.name]

    def read(self, row: dict[str, Any]) -> tuple[str, tuple[Message, ...]]:
        """Return a row's text, and its messages.

        Raises:
            NoTextError: it has none.
        """
        value = find(row, self.name)
        if value is _MISSING:
            raise NoTextError(f"no field “{self.name}”")
        if not isinstance(value, str):
            raise NoTextError(f"the field “{self.name}” holds {_kind(value)}, not text")
        return value, ()


@dataclass(frozen=True)
class Template:
    """Several columns put into a text."""

    text: str
    fields: tuple[str, ...]

    def needs(self, names: Collection[str]) -> list[str]:
        return list(dict.fromkeys(each for f in self.fields for each in Column(f).needs(names)))

    def read(self, row: dict[str, Any]) -> tuple[str, tuple[Message, ...]]:
        parts = []
        for literal, field, _, _ in string.Formatter().parse(self.text):
            parts.append(literal)
            if field is None:
                continue
            value = find(row, field)
            if isinstance(value, int | float) and not isinstance(value, bool):
                value = str(value)
            parts.append(value if isinstance(value, str) else Column(field).read(row)[0])
        return "".join(parts), ()


@dataclass(frozen=True)
class Turns:
    """A conversation: a list of objects with who speaks and what."""

    name: str

    def needs(self, names: Collection[str]) -> list[str]:
        return [self.name]

    def read(self, row: dict[str, Any]) -> tuple[str, tuple[Message, ...]]:
        turns = row.get(self.name)
        if not isinstance(turns, list):
            raise NoTextError(f"the field “{self.name}” holds {_kind(turns)}, not messages")
        return written(tuple(self._message(number, turn) for number, turn in enumerate(turns, 1)))

    def _message(self, number: int, turn: Any) -> Message:
        if isinstance(turn, dict):
            role = next((turn[key] for key in _ROLE if isinstance(turn.get(key), str)), None)
            text = next((turn[key] for key in _CONTENT if isinstance(turn.get(key), str)), None)
            if role is not None and text is not None:
                return Message(role, text)
        raise NoTextError(f"message {number} of “{self.name}” lacks who speaks or what is said")


@dataclass(frozen=True)
class Instruction:
    """A question, what belongs to it, and the answer."""

    asked: str
    further: str | None
    answered: str

    def needs(self, names: Collection[str]) -> list[str]:
        return [each for each in (self.asked, self.further, self.answered) if each]

    def read(self, row: dict[str, Any]) -> tuple[str, tuple[Message, ...]]:
        question, answer = (Column(each).read(row)[0] for each in (self.asked, self.answered))
        further = row.get(self.further) if self.further else None
        if isinstance(further, str) and further:
            question = f"{question}\n\n{further}"
        return written((Message("user", question), Message("assistant", answer)))


Choice = Column | Template | Turns | Instruction


def find(row: dict[str, Any], name: str) -> Any:
    """Return the value of a field; where there is none, of one inside objects, dots between."""
    if name in row:
        return row[name]
    first, dot, rest = name.partition(".")
    if dot and isinstance(row.get(first), dict):
        return find(row[first], rest)
    return _MISSING


def has(row: dict[str, Any], name: str) -> bool:
    """Whether a row has a field, perhaps inside objects."""
    return find(row, name) is not _MISSING


def parse_template(text: str) -> Template:
    """Return a template such as `{title}\\n\\n{text}`, in which `\\n` may stand for a line break.

    Raises:
        DataError: it names no column, or is not well formed.
    """
    text = text.replace("\\n", "\n").replace("\\t", "\t")
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        raise DataError(f"The template {text!r} is not well formed: {error}.") from error
    fields = tuple(field for _, field, _, _ in parts if field is not None)
    if not fields or "" in fields or any(spec or how for _, _, spec, how in parts):
        raise DataError(
            f"The template {text!r} names no columns.",
            hint="Put them in braces: --template '{title}\\n\\n{text}'.",
        )
    return Template(text, fields)


def conversation_in(names: Collection[str]) -> Turns | Instruction | None:
    """Return how the columns of a table are those of conversations, if they are."""
    for name in _TURNS:
        if name in names:
            return Turns(name)
    asked, further, answered = (
        next((name for name in known if name in names), None)
        for known in (_ASKED, _FURTHER, _ANSWERED)
    )
    return Instruction(asked, further, answered) if asked and answered else None


def written(messages: tuple[Message, ...]) -> tuple[str, tuple[Message, ...]]:
    """Return a conversation as text: a line with who speaks and a colon, then what is said."""
    return "\n\n".join(f"{each.role}:\n{each.text}" for each in messages), messages


def _kind(value: Any) -> str:
    kind = type(value).__name__ if value is not _MISSING else "NoneType"
    return _TYPES.get(kind, kind)
