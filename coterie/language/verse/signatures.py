"""What metre hears of a word: the weight of each syllable, and the licences that reading costs.

A signature is a string with one letter for each syllable. Of words of several syllables: "1"
primary stress, "2" secondary, "3" unstressed with a full vowel, "0" reduced. Of one syllable, by
`tables/weight.txt`: "A" articles, "O" prepositions and conjunctions, "P" pronouns, "B" auxiliaries,


Thousands of words share few sets of signatures, so an automaton that knows sets scans words fast.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from coterie.language.verse.dictionary import table
from coterie.language.verse.phones import ELIDED, REDUCED, Phones, is_vowel
from coterie.language.verse.readings import Reading, readings

CLASSES = "0123AOPBQC"
MERGED = "~"  # a syllable that runs into the next word
_GLIDES = {"the", "to", "th'"}


class Option(NamedTuple):
    """One way to say a word: its signature, and the licences that it takes."""

    signature: str
    licences: tuple[str, ...]


class Options(tuple[Option, ...]):
    """The ways to say a word: one object for all words that have the same, so it hashes fast."""

    __slots__ = ()
    __hash__ = object.__hash__
    __eq__ = object.__eq__


_KNOWN: dict[tuple[Option, ...], Options] = {}


@functools.lru_cache(maxsize=1 << 16)
def options(key: str, before_vowel: bool = False) -> Options:
    """Return the ways to say a word, each signature once with the fewest licences.

    Args:
        key: as `lines.key_of` gives it.
        before_vowel: whether the next word follows without a pause and begins with a vowel, into
            which a vowel at the end of this one may run: "th' orient", "man-y a".
    """
    found: dict[str, Option] = {}
    for reading in readings(key):
        for option in _said(key, reading, before_vowel):
            other = found.get(option.signature)
            if other is None or len(option.licences) < len(other.licences):
                found[option.signature] = option
    ways = tuple(sorted(found.values(), key=lambda option: len(option.licences)))
    return _KNOWN.setdefault(ways, Options(ways))


def _said(key: str, reading: Reading, before_vowel: bool) -> list[Option]:
    signature = signature_of(key, reading.phones)
    said = [Option(signature, reading.licences)]
    if before_vowel and is_vowel(reading.phones[-1]) and (key in _GLIDES or signature[-1] in "03"):
        said.append(Option(signature[:-1] + MERGED, (*reading.licences, "synaloepha")))
    return said


def signature_of(key: str, phones: Phones) -> str:
    """Return the weight of each syllable of a reading."""
    vowels = [phone for phone in phones if is_vowel(phone)]
    full = [vowel for vowel in vowels if vowel[-1] != ELIDED]
    if len(vowels) <= 1 or (len(full) == 1 and key in table("weight")):
        heavy = weight(key)
        return "".join(ELIDED if vowel[-1] == ELIDED else heavy for vowel in vowels)
    return "".join(_class(vowel) for vowel in vowels)


def _class(vowel: str) -> str:
    if vowel[-1] in "12-":
        return vowel[-1]
    return "0" if vowel[:2] in REDUCED else "3"


def weight(key: str) -> str:
    """Return the class of a word of one syllable."""
    known = table("weight")
    return (known.get(key) or known.get(key.strip("'")) or ("C",))[0]


@functools.lru_cache(maxsize=1 << 16)
def opens_with_vowel(key: str) -> bool:
    """Whether a vowel may run into a word: it begins with one, or with a weak h."""
    first = readings(key)[0].phones
    return is_vowel(first[0]) or (first[0] == "HH" and weight(key) in "IMPB")
