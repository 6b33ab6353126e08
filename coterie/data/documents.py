"""A document: one named piece of text, the unit that splits hold together or apart."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from coterie.foundation.errors import DataError

BATCH = 1 << 20  # characters that are worth one call of what works on arrays

Edit = tuple[int, int, str]
"""A range of characters and the text that takes its place."""


@dataclass(frozen=True, slots=True)
class Span:
    """The characters `start` to before `end` of a text, and what they are."""

    label: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Message:
    """What somebody said in a conversation, and in which role: system, user, assistant, …"""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Document:
    """One text with what is known of it; all of it reaches the tokenizer's side of the store.

    A text too big to hold comes in several consecutive pieces, of which all but the first have
    `continued` set.

    Attributes:
        name: where it came from, for messages: a path, a path with a row number, a title.
        text: its characters, or those of a piece.
        continued: whether this piece goes on with the document before it.
        source: the file or corpus that it came from.
        messages: the conversation that `text` writes out, if it is one.
        origin: the input that the user named, to which the source belongs.
        language: its code or name, where the source gives one.
        spans: labelled ranges of `text`.
    """

    name: str
    text: str
    continued: bool = False
    source: str = ""
    language: str | None = None
    spans: tuple[Span, ...] = ()
    origin: str = ""
    messages: tuple[Message, ...] = ()

    def cut(self, start: int, end: int | None = None) -> Document:
        """Return a stretch of the text with its share of the spans."""
        end = len(self.text) if end is None else end
        spans = tuple(
            Span(span.label, max(span.start, start) - start, min(span.end, end) - start)
            for span in self.spans
            if span.start < end and span.end > start
        )
        continued = self.continued or start > 0
        return replace(self, text=self.text[start:end], continued=continued, spans=spans)

    def edited(self, edits: Sequence[Edit]) -> Document:
        """Return the document with ranges of its text replaced; spans move along.

        A span of which nothing is left is dropped.

        Args:
            edits: in order, none overlapping another.
        """
        parts, at = [], 0
        for start, end, new in edits:
            parts += [self.text[at:start], new]
            at = end
        parts.append(self.text[at:])
        return replace(self, text="".join(parts), spans=_moved(self.spans, edits))


def _moved(spans: tuple[Span, ...], edits: Sequence[Edit]) -> tuple[Span, ...]:
    if not spans or not edits:
        return spans
    begins = [start for start, _, _ in edits]
    grown = [0, *itertools.accumulate(len(new) - (end - start) for start, end, new in edits)]

    def moved(place: int) -> int:
        count = bisect_left(begins, place)  # edits that begin before the place
        if count == 0:
            return place
        start, end, new = edits[count - 1]
        inside = min(place, end) - start if place < end else len(new)
        return start + grown[count - 1] + min(inside, len(new)) + max(place - end, 0)

    found = (Span(span.label, moved(span.start), moved(span.end)) for span in spans)
    return tuple(span for span in found if span.start < span.end)


def joined(pieces: Sequence[Document]) -> Document:
    """Return consecutive pieces of one document as one piece."""
    first = pieces[0]
    begins = itertools.accumulate((len(piece.text) for piece in pieces), initial=0)
    spans = tuple(
        Span(span.label, span.start + begin, span.end + begin)
        for begin, piece in zip(begins, pieces, strict=False)
        for span in piece.spans
    )
    return replace(first, text="".join(piece.text for piece in pieces), spans=spans)


def whole_documents(documents: Iterable[Document]) -> Iterator[Document]:
    """Join the pieces of continued documents; each must fit in memory.

    Raises:
        DataError: one does not.
    """
    pieces: list[Document] = []
    try:
        for document in documents:
            if not document.continued and pieces:
                yield joined(pieces)
                pieces = []
            pieces.append(document)
        if pieces:
            yield joined(pieces)
    except MemoryError as error:
        raise too_large(pieces[-1].name if pieces else "the first text") from error


def too_large(name: str) -> DataError:
    """Return the error of a document for which memory does not suffice."""
    return DataError(
        f"{name} is worked on as a whole, and memory does not suffice for it.",
        hint="Divide it into smaller files, or give the process more memory.",
    )


class _HasText(Protocol):
    @property
    def text(self) -> str: ...


T = TypeVar("T", bound=_HasText)


def in_batches(items: Iterable[T], characters: int = BATCH) -> Iterator[list[T]]:
    """Yield documents, or pieces of some, in lists of at least so many characters but the last."""
    batch: list[T] = []
    size = 0
    for item in items:
        batch.append(item)
        size += len(item.text)
        if size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
