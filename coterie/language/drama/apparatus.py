"""Take off what a publisher or an editor put around a text, keeping account of every piece.

Three licences are known: the markers of Project Gutenberg since 2001 (`*** START OF ... ***`), its
small print of the 1990s (`*END*THE SMALL PRINT! ...*END*`) and the notice inside the World Library
edition (`<<THIS ELECTRONIC VERSION ... >>`), which returns after every few scenes. Notes, page
numbers, captions and marks of emphasis are the same in plays, poems and prose.
"""

from __future__ import annotations

import re

from coterie.language.drama.structure import Problem

_END = r"(?:\*\*\* ?END OF (?:THE|THIS) PROJECT GUTENBERG|End of (?:the |this )?Project Gutenberg)"
_PIECES = tuple(
    (re.compile(pattern, re.M | re.S | re.I), reason)
    for pattern, reason in (
        (r"\A.*?^\*\*\* ?START OF (?:THE|THIS) PROJECT GUTENBERG.*?\*\*\*[^\n]*\n", "licence"),
        (r"\A.*?^\*END\*? ?THE SMALL PRINT!.*?\*END\*[^\n]*\n", "licence"),
        (rf"^{_END}.*\Z", "licence"),
        (r"<<\s*THIS ELECTRONIC VERSION.*?>>[^\n]*\n?", "licence"),
        (r"^[ ]*(?:Produced|Transcribed|E-?text prepared) by (?:[^\n]+\n)+", "the producers"),
        (r"\[Transcriber'?s? ?note.*?\]", "a transcriber's note"),
        (r"^[ ]*\[(?:Illustration|Music)\b[^\]]*\][ ]*$", "a picture"),
        (
            r"^[ ]*\[?(?:Footnote|Note) ?[\dA-Z]{1,3}:.*?(?:\](?=[ ]*$)|(?=\n[ ]*\n)|\Z)",
            "a footnote",
        ),
        (r"^[ ]*\[\d{1,3}\] [^\n]+(?:\n[^\n\[]+)*", "a footnote"),
        (
            r"^[ ]*(?:\[|\{)(?:Pg|Page|p\.) ?\w+(?:\]|\})[ ]*$|^[ ]*-? ?\d{1,4} ?-?[ ]*$",
            "a page number",
        ),
        (r"(?:\[|\{)(?:Pg|Page|p\.) ?\w+(?:\]|\})", "a page number"),
        (r"(?<=[\w.,;:!?'\")\]])\[\d{1,3}\]", "the mark of a footnote"),
    )
)
TAKEN = "\0"
_EMPHASIS = re.compile(r"(?<![\w_*\\])([_=*])(?=[^\s_=*])([^_=*\n\[\]\\]*[^\s_=*\\])\1(?![\w_=*])")


def strip_apparatus(text: str) -> tuple[str, list[Problem]]:
    """Return the text without licence and apparatus, and every piece that was taken off.

    Lines that went as a whole are left as the mark `TAKEN`, so that the others keep their numbers.
    """
    removed: list[Problem] = []
    for pattern, reason in _PIECES:
        text = _take(text, pattern, reason, removed)
    return text, sorted(removed, key=lambda piece: piece.line)


def _take(text: str, pattern: re.Pattern[str], reason: str, removed: list[Problem]) -> str:
    kept, at = [], 0
    for found in pattern.finditer(text):
        kept.append(text[at : found.start()])
        at = found.end()
        whole = not text[: found.start()].rpartition("\n")[2].strip()
        kept.append("\n".join([TAKEN if whole else "", *[TAKEN] * found[0].count("\n")]))
        if found[0].strip():
            removed.append(Problem(text.count("\n", 0, found.start()) + 1, found[0], reason))
    return "".join([*kept, text[at:]])


def without_emphasis(line: str) -> str:
    """Return a line without the marks around emphasised words (`_so_`, `*so*`, `=so=`)."""
    return _EMPHASIS.sub(r"\2", line)


def numbered(text: str) -> list[tuple[int, str]]:
    """Return the lines of a text that `strip_apparatus` left, with their numbers from 1."""
    lines = enumerate(text.removesuffix("\n").split("\n"), start=1)
    return [(number, line.replace(TAKEN, "")) for number, line in lines if line != TAKEN]
