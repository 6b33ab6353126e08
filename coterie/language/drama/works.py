"""Collected works: where in a file a new work begins.

Three signs are known, and looked for in this order: several of Project Gutenberg's markers, one for
each book that somebody put into the file; several Markdown titles; a list of contents whose titles
stand on lines of their own further down. Acts, chapters and the like are no works.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from coterie.language.drama.structure import Problem

_BOOK = re.compile(
    r"\*\*\* ?START OF (?:THE|THIS) PROJECT GUTENBERG(?: EBOOK)? ?(.*?) ?\*\*\*", re.I
)
_MARKDOWN = re.compile(r"# +(\S.*)")
_CONTENTS = re.compile(r"\W*(?:table of )?contents\W*", re.I)
_PAGE = re.compile(r"(?:[.…\s]{3,}(?:\d+|[ivxlc]+)|\s*[.…]{2,})\s*$", re.I)
_WITHIN = re.compile(
    r"(?:act|actus|scene|scena|chapter|book|part|canto|volume|letter|prologue|epilogue|induction|"
    r"preface|introduction|contents|notes?|footnotes?|index|glossary|appendix|dramatis|persons?)"
    r"\b.*|[ivxlcdm\d\W]+",
    re.I,
)


class Work(NamedTuple):
    """One of the works in a file.

    Attributes:
        title: as it stands over it; "" of a file that is one work.
        line: where in the file it begins, from 1.
        text: all of it, its title too.
        told: what of the file is in none of the works, and titles that were not found.
    """

    title: str
    line: int
    text: str
    told: tuple[Problem, ...] = ()
    missed: tuple[Problem, ...] = ()


def divided(text: str) -> list[Work]:
    """Return the works in a text; one of its own if no sign of several is found."""
    lines = re.split(r"(?<=\n)", text)  # as lines are counted everywhere else
    books = [(found[1], at) for at, line in enumerate(lines) if (found := _BOOK.match(line))]
    if len(books) < 2:
        return _of_book(lines, 0)
    ends = [*(at for _, at in books[1:]), len(lines)]
    begins = [0, *(at for _, at in books[1:])]  # what precedes a marker ends the book before
    works: list[Work] = []
    for (title, _), begin, end in zip(books, begins, ends, strict=True):
        inside = _of_book(lines[begin:end], begin)
        works += inside if len(inside) > 1 else [inside[0]._replace(title=title)]
    return works


def _of_book(lines: list[str], before: int) -> list[Work]:
    """Return the works in a book that begins after so many lines of the file."""
    missed: list[Problem] = []
    places = list(_markdown(lines))
    if len(places) < 2:
        places = list(_listed(lines, before, missed))
    if len(places) < 2:
        return [Work("", before + 1, "".join(lines))]
    ends = [*(at for _, at in places[1:]), len(lines)]
    works = [
        Work(title, before + at + 1, "".join(lines[at:end]))
        for (title, at), end in zip(places, ends, strict=True)
    ]
    front = "".join(lines[: places[0][1]])
    told = (Problem(before + 1, front, "what precedes the first work"),) if front.strip() else ()
    return [works[0]._replace(told=told, missed=tuple(missed)), *works[1:]]


def _markdown(lines: list[str]) -> Iterator[tuple[str, int]]:
    for at, line in enumerate(lines):
        if (found := _MARKDOWN.fullmatch(line.strip())) and not _WITHIN.fullmatch(found[1]):
            yield found[1], at


def _listed(lines: list[str], before: int, missed: list[Problem]) -> Iterator[tuple[str, int]]:
    """Yield where the titles of the list of contents stand, each after the one before it."""
    start = next((at for at, line in enumerate(lines) if _CONTENTS.fullmatch(line.strip())), None)
    if start is None:
        return
    titles, blank = list[tuple[int, str]](), 0
    for at in range(start + 1, len(lines)):
        title = lines[at].strip()
        blank = 0 if title else blank + 1
        if titles and blank > 1:
            break
        if title and not _WITHIN.fullmatch(title):
            titles.append((at, _PAGE.sub("", title)))
    end = titles[-1][0] + 1 if titles else len(lines)
    plain = [_plain(line) for line in lines]
    heads = [
        at
        for at in range(end, len(lines))
        if plain[at] and not plain[at - 1] and (at + 1 == len(lines) or not plain[at + 1])
    ]
    for number, title in titles:
        found = next((at for at in heads if at >= end and plain[at] == _plain(title)), None)
        if found is None:
            missed.append(Problem(before + number + 1, title, "a title that stands over no work"))
        else:
            end = found + 1
            yield title, found


def _plain(line: str) -> str:
    return "".join(filter(str.isalnum, line)).casefold()
