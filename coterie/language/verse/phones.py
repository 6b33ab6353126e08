"""Sounds: the phones of the CMU dictionary, its stress digits, and what makes a syllable.

A reading is a tuple of phones such as ``("HH", "EH1", "V", "AH-", "N")``. A vowel carries its
stress (0 none, 1 primary, 2 secondary), or "-" where verse gives its syllable no time of its own.
"""

from __future__ import annotations

VOWELS = frozenset(
    ["AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW"]
)
REDUCED = frozenset({"AH", "IH", "ER"})
ELIDED = "-"

Phones = tuple[str, ...]


def is_vowel(phone: str) -> bool:
    """Whether a phone is the vowel of a syllable, elided or not."""
    return phone[:2] in VOWELS


def stresses(phones: Phones) -> str:
    """Return one digit for each syllable, "-" for those that are elided."""
    return "".join(phone[-1] for phone in phones if is_vowel(phone))


def syllables(phones: Phones) -> int:
    """Return how many syllables a reading has, without elided ones."""
    return sum(is_vowel(phone) and phone[-1] != ELIDED for phone in phones)


def restressed(phones: Phones, pattern: str) -> Phones:
    """Return phones whose syllables carry other digits, one of the pattern for each."""
    digits = iter(pattern)
    return tuple(phone[:2] + next(digits) if is_vowel(phone) else phone for phone in phones)


def last_stressed(phones: Phones) -> int:
    """Return the index of the last vowel with primary stress, or secondary, or of the last vowel.

    Phones without a vowel give 0.
    """
    vowels = [index for index, phone in enumerate(phones) if is_vowel(phone)]
    for digit in "12":
        for index in reversed(vowels):
            if phones[index][-1] == digit:
                return index
    return vowels[-1] if vowels else 0
