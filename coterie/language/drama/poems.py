"""Read a poem or a cycle in plain text: stanzas between empty lines, parts under Roman numbers."""

from __future__ import annotations

import re

from coterie.language.drama.apparatus import numbered, strip_apparatus
from coterie.language.drama.structure import Part, Poem, Problem
from coterie.language.drama.typography import LEFT_OVER, LOST, tidy_line

_PART = re.compile(r"((?:(?:BOOK|CANTO|PART) )?[IVXLC]+|\d{1,3})\.?|(THRENOS)\.|(THE ARGUMENT)\.")
_RULE = re.compile(r"_{5,}|-{5,}")
_LOST = re.compile(r"(?:\* *){3,}")
_AUTHOR = re.compile(r"by William Shakespeare", re.I)
_DEDICATION = re.compile(r"TO THE")


class _Reader:
    def __init__(self, title: str | None) -> None:
        self.title = title
        self.own_title: str | None = None
        self.parts: list[tuple[str | None, list[list[str]]]] = []
        self.gap = True
        self.problems: list[Problem] = []
        self.removed: list[Problem] = []

    def line(self, number: int, line: str) -> None:
        if not line:
            self.gap = True
            return
        if self.own_title is None:
            self.own_title = line
            if self.title is None:
                return  # it is in the poem's tag
            self.removed.append(Problem(number, line, "the source's title"))
        elif line == self.own_title or _AUTHOR.fullmatch(line):
            self.removed.append(Problem(number, line, "the title page"))
        elif found := _PART.fullmatch(line):
            self._part(next(filter(None, found.groups())))
        elif _DEDICATION.fullmatch(line):
            self._part("DEDICATION")
            self._verse(number, line)
        elif _RULE.fullmatch(line):
            self.removed.append(Problem(number, line, "a rule between two parts"))
            self._part("THE POEM")
        else:
            self._verse(number, LOST if _LOST.fullmatch(line) else line)

    def _part(self, name: str | None) -> None:
        self.parts.append((name, []))
        self.gap = True

    def _verse(self, number: int, line: str) -> None:
        if not self.parts:
            self._part(None)
        stanzas = self.parts[-1][1]
        stanzas += [[]] if self.gap else []
        self.gap = False
        if LEFT_OVER.search(line):
            self.problems.append(Problem(number, line, "marks left over in words"))
            line = re.sub(r"[<>]", "", line)
        stanzas[-1].append(tidy_line(line))


def parse_poem(text: str, *, title: str | None = None) -> Poem:
    """Return the poem or cycle that a plain text holds, without title page, licence and rules.

    The title is the given one or the source's first line. Indentation is dropped: it
    marks couplets that rhyme and position mark already.
    """
    text, removed = strip_apparatus(text)
    reader = _Reader(title)
    reader.removed += removed
    for number, raw in numbered(text):
        reader.line(number, raw.strip())
    parts = tuple(
        Part(name, tuple(tuple(stanza) for stanza in stanzas)) for name, stanzas in reader.parts
    )
    return Poem(
        title or tidy_line(reader.own_title or "") or "Untitled",
        parts,
        tuple(reader.problems),
        tuple(reader.removed),
    )
