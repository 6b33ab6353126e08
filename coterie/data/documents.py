"""A document: one named piece of text, the unit that splits hold together or apart."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Document:
    """One piece of text with a name that says where it came from.

    The name (a path, a path with a row number, a title) appears in messages and takes part in the
    hash that assigns the document to a split, so it should not change from machine to machine.
    """

    name: str
    text: str
