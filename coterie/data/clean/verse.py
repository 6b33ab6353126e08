"""Verse out of texts that hold other things too: speeches and stanzas whose lines scan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from pydantic import Field, field_validator

from coterie.data.documents import Document
from coterie.foundation.errors import UserError
from coterie.foundation.settings import Settings
from coterie.language.drama.tags import HEADING, STAGE
from coterie.language.verse.metres import metre_of
from coterie.language.verse.scansion import scan


class Verse(Settings):
    """Stanzas and speeches stay in which most lines are in a metre; marks and all else go.

    Lines are kept as they are, one empty line between stanzas; spans are dropped. A document
    without verse is left out.
    """

    kind: Literal["verse"] = "verse"
    metre: str = Field(default="iambic-pentameter", description="what lines are held against")
    share: float = Field(default=0.75, gt=0, le=1, description="of a stanza's lines that must scan")
    lines: int = Field(default=2, ge=1, description="fewest of a stanza or a speech")

    @field_validator("metre")
    @classmethod
    def _known(cls, metre: str) -> str:
        try:
            return metre_of(metre).name
        except UserError as error:
            raise ValueError(error.message) from error

    def build(self) -> _Cleaner:
        return _Cleaner(self)


class _Cleaner:
    def __init__(self, settings: Verse) -> None:
        self._settings = settings

    def __call__(self, document: Document) -> Document | None:
        kept = ["\n".join(lines) for lines in _stanzas(document.text) if self._is_verse(lines)]
        return replace(document, text="\n\n".join(kept) + "\n", spans=()) if kept else None

    def _is_verse(self, lines: list[str]) -> bool:
        given = self._settings
        if len(lines) < given.lines:
            return False
        good = sum(scan(line, given.metre, at).metrical for at, line in enumerate(lines))
        return good >= given.share * len(lines)


def _stanzas(text: str) -> Iterator[list[str]]:
    """Yield the lines between empty lines and headings, without directions."""
    lines: list[str] = []
    for line in [*text.split("\n"), ""]:
        bare = STAGE.sub("", line).strip()
        if bare and not HEADING.fullmatch(bare):
            lines.append(bare)
        elif lines and not (line.strip() and not bare):  # a direction alone parts nothing
            yield lines
            lines = []
