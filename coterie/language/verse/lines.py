"""A line of verse cut into words, with the pauses between them."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

WORD = re.compile(r"['’]?[^\W_]+(?:['’][^\W_]+|-(?!-)[^\W_]+)*['’]?")
_BREAK = re.compile(r"[,.;:!?()\[\]–—…\"“”]|--")
_LETTERS = str.maketrans(
    {"’": "'", "æ": "ae", "œ": "oe", "ß": "ss", "ð": "th", "þ": "th", "ø": "o"}
)


class Word(NamedTuple):
    """A word of a line: as written, as looked up, where, and whether a pause precedes it."""

    text: str
    key: str
    start: int
    after_break: bool


def words(line: str) -> list[Word]:
    """Return the words of a line without tags; a pause is a mark of punctuation between two."""
    found, end = [], 0
    for match in WORD.finditer(line):
        start, text = match.start(), match[0]
        pause = bool(found) and start - end > 1 and _BREAK.search(line, end, start) is not None
        found.append(Word(text, key_of(text), start, pause))
        end = match.end()
    return found


def key_of(text: str) -> str:
    """Return a word as readings are looked up: lower case, plain apostrophes, no accents."""
    key = text.lower()
    if key.isascii():
        return key
    plain = unicodedata.normalize("NFKD", key.translate(_LETTERS))
    return "".join(each for each in plain if not unicodedata.combining(each))
