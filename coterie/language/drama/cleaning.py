"""Clean one text: a play or a poem becomes tagged text, any other book plain paragraphs.

Every letter of the source is in the result, in the name of one of its tags, or in the account.
Cleaning what is clean changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from coterie.language.drama.apparatus import numbered, strip_apparatus, without_emphasis
from coterie.language.drama.names import find_names
from coterie.language.drama.poems import parse_poem
from coterie.language.drama.reader import parse_play
from coterie.language.drama.structure import Problem
from coterie.language.drama.tags import check_tagged, from_inside, to_inside, to_tagged
from coterie.language.drama.typography import normalise

Kind = Literal["shakespeare", "gutenberg", "auto"]
Tags = Literal["full", "inside"]
_SPEAKERS = 10  # a text with fewer is no play, unless it is said to be drama
_LEFT_OVER = re.compile(r"[_*\[\]{}|<>=^\\]")


class Cleaned(NamedTuple):
    """A text after cleaning, with the account of what became of its lines.

    `problems` are lines that no rule recognised (their words are kept where they can be), `removed`
    what a rule left out, `rewritten` what a tag says in other words.
    """

    kind: Literal["play", "poem", "book"]
    text: str
    problems: tuple[Problem, ...] = ()
    removed: tuple[Problem, ...] = ()
    rewritten: tuple[Problem, ...] = ()

    def account(self) -> Iterator[tuple[str, Problem]]:
        """Yield all that is told, each with what became of it."""
        for name in ("problems", "removed", "rewritten"):
            for problem in getattr(self, name):
                yield "unrecognised" if name == "problems" else name, problem


def clean_text(text: str, kind: Kind = "auto", tags: Tags = "full") -> Cleaned:
    """Return a text cleaned.

    Args:
        text: the source, with line ends of any kind.
        kind: `shakespeare` reads plays and poems, `gutenberg` any book, `auto` looks.
        tags: `inside` for the flat form, with brackets inside `<STAGE>` and acts as scenes.
    """
    text = normalise(text.replace("\0", " "))
    tagged = from_inside(text)
    if not check_tagged(tagged):
        found = Cleaned("poem" if tagged.startswith("<POEM>") else "play", tagged)
    else:
        found = _read(text, _kind_of(text, kind))
    return found._replace(text=to_inside(found.text)) if tags == "inside" else found


def _kind_of(text: str, kind: Kind) -> Literal["play", "poem", "book"]:
    if kind == "gutenberg":
        return "book"
    lines = numbered(strip_apparatus(text)[0])
    words = [line.strip() for _, line in lines if line.strip()]
    names = find_names(lines)
    speakers = len(names.speakers)
    many = speakers >= _SPEAKERS and speakers * 40 > len(words)
    if many or (kind == "shakespeare" and (speakers > 1 or names.headings)):
        return "play"
    verses = sum(len(line) <= 60 and not line[0].islower() for line in words)
    return "poem" if kind == "shakespeare" or verses * 10 >= len(words) * 9 > 0 else "book"


def _read(text: str, kind: Literal["play", "poem", "book"]) -> Cleaned:
    if kind == "book":
        return _book(text)
    work = parse_play(text) if kind == "play" else parse_poem(text)
    return Cleaned(kind, to_tagged(work), work.problems, work.removed, work.rewritten)


def _book(text: str) -> Cleaned:
    """Return running text: paragraphs with one empty line between them."""
    text, removed = strip_apparatus(text)
    lines, problems = [""], []
    for number, raw in numbered(text):
        line = without_emphasis(raw.rstrip())
        if _LEFT_OVER.search(line):
            problems.append(Problem(number, line.strip(), "marks left over in words"))
        if line or lines[-1]:
            lines.append(line)
    words = "\n".join(lines).strip("\n")
    return Cleaned("book", words + "\n" if words else "", tuple(problems), tuple(removed))
