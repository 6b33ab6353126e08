"""Rhyme schemes: which letters the lines of a stanza have, by the evidence of all their pairs.

The evidence for a scheme is the sum, over all pairs of lines to which it gives one letter, of how
much likelier the distance of their ends is between lines that rhyme. One slip costs little.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from coterie.foundation.errors import UserError, nearest
from coterie.language.verse.dictionary import table
from coterie.language.verse.rhyme import Rhyme, last_word, rhyme


class Form(NamedTuple):
    """A named scheme: a letter for each line, and the metre it is usually in, if any."""

    name: str
    letters: str
    metre: str | None = None


@functools.cache
def forms() -> dict[str, Form]:
    """Return the named forms, in the order of their table."""
    found = {}
    for name, (entry,) in table("forms").items():
        letters, _, metre = entry.partition(" metre=")
        found[name] = Form(name, letters, metre or None)
    return found


def form_of(scheme: str) -> Form:
    """Return a form by its name, or of any letters such as "ABABCC".

    Raises:
        UserError: it is neither.
    """
    name = scheme.strip().lower().replace(" ", "-").replace("_", "-")
    name = "sonnet-shakespearean" if name == "sonnet" else name
    if name in forms():
        return forms()[name]
    if scheme.isalpha() and scheme.isupper():
        return Form(scheme, scheme)
    raise UserError(
        f"There is no form “{scheme}”; {nearest(name, forms())}",
        hint="Capital letters say any scheme: one for each line, such as ABABCC.",
    )


def pairs_of(letters: Sequence[str]) -> list[tuple[int, int]]:
    """Return the pairs of lines that a scheme wants to rhyme."""
    return [
        (first, second)
        for second in range(len(letters))
        for first in range(second)
        if letters[first] == letters[second]
    ]


def rhymes_of(lines: Sequence[str], within: int = 14) -> dict[tuple[int, int], Rhyme]:
    """Return how each pair of lines rhymes that are at most so many lines apart."""
    ends = [last_word(line) for line in lines]
    return {
        (first, second): rhyme(ends[first], ends[second])
        for second in range(len(ends))
        for first in range(max(0, second - within), second)
    }


def support(letters: str, rhymes: dict[tuple[int, int], Rhyme]) -> float:
    """Return the evidence for a scheme, in nats; no word rhymes with itself."""
    return sum(_weight(rhymes[pair]) for pair in pairs_of(letters) if pair in rhymes)


def _weight(found: Rhyme) -> float:
    return min(0.0, found.evidence) if found.kind == "identical" else found.evidence


def likeliest(lines: Sequence[str], candidates: Iterable[Form]) -> tuple[Form, float]:
    """Return the form among some that a stanza most likely has, and the evidence for it in nats.

    Args:
        lines: of the stanza.
        candidates: only those with a letter for each line are looked at.

    Raises:
        UserError: none has as many letters as there are lines.
    """
    rhymes = rhymes_of(lines)
    found = [(support(each.letters, rhymes), each) for each in candidates
             if len(each.letters) == len(lines)]  # fmt: skip
    if not found:
        raise UserError(f"No form among these has {len(lines)} lines.")
    best, form = max(found, key=lambda each: each[0])
    return form, best


def letters_of(lines: Sequence[str], within: int = 4) -> list[str]:
    """Return the letters of lines without a form in mind: each joins the lines it suits best.

    Args:
        lines: of a stanza or a poem.
        within: how many lines back a rhyme is looked for.
    """
    rhymes = rhymes_of(lines, within)
    given: list[int] = []
    for line in range(len(lines)):
        suits: dict[int, float] = {}
        for before in range(max(0, line - within), line):
            suits.setdefault(given[before], 0.0)
            suits[given[before]] += _weight(rhymes[before, line])
        best = max(suits, key=lambda letter: suits[letter], default=None)
        new = max(given, default=-1) + 1
        given.append(new if best is None or suits[best] <= 0 else best)
    return [letter(each) for each in given]


def letter(index: int) -> str:
    """Return the name of a letter of a scheme: A to Z, then A1 and so on."""
    return chr(65 + index % 26) + (str(index // 26) if index >= 26 else "")
