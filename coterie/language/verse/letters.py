"""Spelling to sound: a reading for whatever stands in no table and is no form of a word that does.

Rules of English spelling, longest first, and stress by ending. A last resort: it gives names,
foreign words and misspellings a plausible number of syllables and a plausible rhyme.
"""

from __future__ import annotations

import functools
import re

from coterie.language.verse.dictionary import table
from coterie.language.verse.phones import Phones, is_vowel, restressed

_DOUBLED = re.compile(r"([bcdfgklmnprstvz])\1")
# Endings before which the stress falls, and those that leave a word of two syllables its second.
_BEFORE = re.compile(r"(ion|ions|ic|ics|ical|ity|ify|ian|ians|ial|ious|eous|ia|io|ius|ium)$")
_WEAK_FIRST = re.compile(r"^(a|be|con|de|dis|em|en|ex|for|im|in|mis|pre|re|sub|un)(?=[^aeiou].*.)")


def sounded(word: str) -> Phones:
    """Return a reading of any word in lower case, by its letters; it has at least one vowel."""
    if word.isdigit():
        return _spelled(word)
    letters = re.sub(r"[^a-z]", "", word)
    if not re.search("[aeiouy]", letters):
        return _spelled(letters) if letters else ("AH0",)
    phones = _by_rules(_DOUBLED.sub(r"\1", letters))
    if not any(map(is_vowel, phones)):
        return _spelled(letters)
    return restressed(phones, _stress(letters, phones))


@functools.cache
def _rules() -> list[tuple[re.Pattern[str], Phones]]:
    every = table("letters").items()
    return [(re.compile(pattern), tuple(sound.split())) for pattern, (sound,) in every]


def _by_rules(letters: str) -> Phones:
    phones: list[str] = []
    at = 0
    while at < len(letters):
        for pattern, sound in _rules():
            found = pattern.match(letters, at)
            if found and found.end() > at:
                phones += [phone + "0" if is_vowel(phone) else phone for phone in sound]
                at = found.end()
                break
        else:
            at += 1
    return tuple(phones)


def _stress(letters: str, phones: Phones) -> str:
    """Return a digit for each syllable: where the stress of an unknown word most likely falls."""
    vowels = [index for index, phone in enumerate(phones) if is_vowel(phone)]
    count = len(vowels)
    if count == 1:
        return "1"
    if count == 2:
        second = _WEAK_FIRST.match(letters) is not None and phones[-1] != "AH0"
        return "01" if second else "10"
    if _BEFORE.search(letters):
        at = count - (3 if letters.endswith(("ical", "ity", "ify", "ia", "io", "ius", "ium", "ian",
                                            "eous", "ious", "ial")) else 2)  # fmt: skip
    else:
        # The Latin rule: the last but one if it is closed by two consonants, else the one before.
        at = count - 2 if vowels[-1] - vowels[-2] > 2 else count - 3
    at = max(at, 0)
    return "".join("1" if index == at else "0" for index in range(count))


def _spelled(word: str) -> Phones:
    """Return the names of letters or digits one after another, the last one stressed."""
    names = table("names")
    phones = " ".join(names[each][0] for each in word if each in names).split() or ["AH"]
    last = max(index for index, phone in enumerate(phones) if is_vowel(phone))
    return tuple(
        phone + ("1" if index == last else "0") if is_vowel(phone) else phone
        for index, phone in enumerate(phones)
    )
