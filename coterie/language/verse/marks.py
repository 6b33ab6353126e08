"""Where the syllables of a line stand in its letters, and its marks as text."""

from __future__ import annotations

import re
from typing import NamedTuple

from coterie.language.verse.phones import ELIDED
from coterie.language.verse.scansion import HEAVY, LIGHT, Scan

_VOWELS = re.compile(r"[aeiouyàáâäèéêëìíîïòóôöùúûü]+", re.IGNORECASE)


class Mark(NamedTuple):
    """A syllable as it is said.

    Attributes:
        start: where its vowels begin in the line.
        end: where they end.
        strong: whether it fills a strong position.
        forced: whether its own weight is another: a light one promoted, a heavy one demoted.
    """

    start: int
    end: int
    strong: bool
    forced: bool


def marks_of(scan: Scan) -> list[Mark]:
    """Return the syllables of a line that are said, in order; none of a line that does not fit."""
    found = []
    for word, marks, said in zip(scan.words, scan.marks, scan.said, strict=False):
        weights = [weight for weight in said.signature if weight != ELIDED]
        for (start, end), mark, weight in zip(
            _spans(word.text, len(marks)), marks, weights, strict=False
        ):
            strong = mark == "s"
            forced = weight in (LIGHT if strong else HEAVY)
            found.append(Mark(word.start + start, word.start + end, strong, forced))
    return found


def marked(line: str, scan: Scan) -> str:
    """Return the marks of a line as text to stand above it: "/" strong and "x" weak positions.

    Args:
        line: as it was scanned.
        scan: of that line.
    """
    row = [" "] * (len(line) + 8)
    free = 0
    for mark in marks_of(scan):
        free = max(free, mark.start)
        if free < len(row):
            row[free] = "/" if mark.strong else "x"
        free += 1
    return "".join(row).rstrip()


def _spans(word: str, count: int) -> list[tuple[int, int]]:
    """Return where the vowels of a word's syllables stand: its groups of them, or evenly."""
    groups = [found.span() for found in _VOWELS.finditer(word)]
    if len(groups) > count and word.lower().endswith(("e", "es", "ed", "ed'", "e'")):
        groups.pop()
    if len(groups) >= count:
        return groups[:count]
    starts = [len(word) * index // max(count, 1) for index in range(count)]
    return [(start, start + 1) for start in starts]
