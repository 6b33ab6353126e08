"""Whitespace at the ends of lines and between paragraphs, in one form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from coterie.data.documents import Document, Edit
from coterie.foundation.settings import Settings

_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"  # those of str.splitlines


class Whitespace(Settings):
    """Line ends become “\\n”, blanks before them go, and so do superfluous blank lines.

    Blank lines at the beginning and the end of a document go altogether; a document of nothing else
    is left out. Indentation stays.
    """

    kind: Literal["whitespace"] = "whitespace"
    blank_lines: int = Field(default=1, ge=0, description="blank lines kept between two paragraphs")

    def build(self) -> _Cleaner:
        return _Cleaner(self.blank_lines)


class _Cleaner:
    def __init__(self, blank_lines: int) -> None:
        self._blank_lines = blank_lines

    def __call__(self, document: Document) -> Document | None:
        text = document.text
        edits = [edit for edit in self._edits(text) if text[edit[0] : edit[1]] != edit[2]]
        found = document.edited(edits) if edits else document
        return found if found.text else None

    def _edits(self, text: str) -> Iterator[Edit]:
        at = blank = begin = 0  # `begin`: where the latest run of blank lines begins
        for line in text.splitlines(keepends=True):
            length = len(line.rstrip())
            end = at + len(line)
            if length:
                kept = min(blank, self._blank_lines) if begin else 0
                yield begin, at, "\n" * kept
                yield at + length, end, "\n" if line[-1] in _LINE_ENDS else ""
                begin, blank = end, 0
            else:
                blank += 1
            at = end
        yield begin, at, ""
