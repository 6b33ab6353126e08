"""Cleaning: transforms of whole documents, before they are divided and tokenized.

A member has `build()`, which returns a `Cleaner`. Its settings decide the text, so they belong to
what identifies a store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated

from coterie.data.clean.verse import Verse
from coterie.data.clean.whitespace import Whitespace
from coterie.data.documents import Document, whole_documents
from coterie.foundation.settings import union

Clean = Annotated[Verse | Whitespace, union(Verse, Whitespace)]

Cleaner = Callable[[Document], Document | None]
"""A pure function of a document; it returns None for one that shall be left out."""


def cleaned(
    documents: Iterable[Document],
    cleaners: Sequence[Cleaner],
    left_out: Callable[[Document], None] = lambda document: None,
) -> Iterator[Document]:
    """Yield documents after all cleaners, one after another; each must fit in memory.

    Args:
        documents: whole or in pieces.
        cleaners: in their order.
        left_out: called with each document that a cleaner leaves out, or leaves without text.
    """
    for document in whole_documents(documents):
        found: Document | None = document
        for clean in cleaners:
            found = clean(found)
            if found is None or not found.text:
                left_out(document)
                break
        else:
            yield found
