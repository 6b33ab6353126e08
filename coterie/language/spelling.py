"""Spelling of Shakespeare's time and of ours: a table of words, and texts in either.

The table pairs words of the First Folio (1623) with those of a modern edition. It knows no rule:
a word that is not in it stays as it is, and so does a form that may stand for two words ("then").
"""

import functools
import re
from pathlib import Path
from typing import Literal

Spelling = Literal["modern", "archaic"]

TABLE = Path(__file__).with_name("spelling.txt")
WORD = re.compile(r"[A-Za-z]+(?:'[A-Za-z]+)*")
# Marks of the drama's grammar, and headings with what they hold, keep their form.
_WORDS = re.compile(rf"<(ACT|SCENE|PART)>.*?</\1>|</?[A-Z]+>|({WORD.pattern})")


@functools.cache
def spellings() -> dict[str, tuple[str, ...]]:
    """Return the spellings of each modern word in lower case, the most frequent first.

    The word itself is among them if the First Folio has it.
    """
    table = {}
    for line in TABLE.read_text("ascii").splitlines():
        word, *forms = line.split()
        if word != "#":
            table[word] = tuple(word if form == "=" else form for form in forms)
    return table


@functools.cache
def respellings(to: Spelling) -> dict[str, str]:
    """Return the words in lower case that a spelling writes otherwise, with how it writes them.

    Modern words become archaic in their most frequent spelling.
    """
    if to == "archaic":
        return {word: forms[0] for word, forms in spellings().items() if forms[0] != word}
    return {form: word for word, forms in spellings().items() for form in forms if form != word}


def respell(text: str, to: Spelling) -> str:
    """Return a text in a modern or an archaic spelling, line by line the same.

    Args:
        text: plain, or with the tags of plays, whose marks and headings stay.
        to: what to make of it.
    """
    table = respellings(to)

    def other(found: re.Match[str]) -> str:
        word = found[2]
        new = table.get(word.lower()) if word else None
        return in_case_of(word, new) if new else found[0]

    return _WORDS.sub(other, text)


def in_case_of(word: str, new: str) -> str:
    """Return a word of lower case with the capitals of another."""
    if len(word) > 1 and word.isupper():
        return new.upper()
    return new[0].upper() + new[1:] if word[0].isupper() else new
