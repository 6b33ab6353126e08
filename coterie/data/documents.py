"""A document: one named piece of text, the unit that splits hold together or apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Document:
    """One text with a name that says where it came from.

    The name (a path, a path with a row number, a title) appears in messages. A text too big to hold
    comes in several consecutive pieces, of which all but the first have `continued` set.
    """

    name: str
    text: str
    continued: bool = False


def whole_documents(documents: Iterable[Document]) -> Iterator[Document]:
    """Join the pieces of continued documents; each must fit in memory."""
    name, pieces = "", []
    for document in documents:
        if not document.continued and pieces:
            yield Document(name, "".join(pieces))
            pieces = []
        if not document.continued:
            name = document.name
        pieces.append(document.text)
    if pieces:
        yield Document(name, "".join(pieces))
