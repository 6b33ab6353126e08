"""Forms of words: the reading of "pluckt'st" from that of "pluck", of compounds from their parts.

What is asked for each word: its sounds as they would stand in the dictionary. What verse may do
with them, such as eliding a syllable, is told in `readings`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from itertools import product

from coterie.language.spelling import respellings
from coterie.language.verse.dictionary import table, written_down
from coterie.language.verse.letters import sounded
from coterie.language.verse.phones import ELIDED, Phones, is_vowel, restressed, stresses

_CLITICS = ("'s", "'d", "'st", "'t", "'ll", "'lt", "'rt")
_WHOLE = ("'s", "'ll", "'re", "'ve", "'t", "'")
_SHORT = re.compile(r"(?:^|[^aeiou])[aeiou][^aeiouwxy]$")
_LONG_DOUBLED = re.compile(r"[aeiou].*[aeiou]([lt])\1$")
_HISSING = {"S", "Z", "SH", "ZH", "CH", "JH"}
_VOICELESS = {"P", "T", "K", "F", "TH", "S", "SH", "CH"}
_SPELLINGS = (("our", "or"), ("ise", "ize"), ("ie", "y"), ("ck", "k"), ("ll", "l"), ("ae", "e"),
              ("oe", "e"), ("ph", "f"), ("eu", "u"), ("y", "i"), ("ence", "ense"), ("re", "er"),
              ("i", "j"), ("vv", "w"), ("u", "v"), ("v", "u"), ("que", "ck"),
              ("x", "ct"))  # fmt: skip


def base_readings(word: str) -> tuple[Phones, ...]:
    """Return the readings of any word in lower case, the usual one first; never none.

    Args:
        word: letters, digits, apostrophes and hyphens.
    """
    return known_readings(word) or (_by_letters(word),)


@functools.lru_cache(maxsize=1 << 16)
def known_readings(word: str) -> tuple[Phones, ...]:
    """Return the readings of a word in a table or of a form of one; none when it is neither."""
    bare = word.strip("'")
    found = written_down(word) or written_down(bare)
    if found or len(bare) < 2:
        return found
    if word[0] == word[-1] == "'":
        return known_readings(bare)  # in quotes
    if "-" in word.strip("-"):
        return _hyphenated(word)
    for way in (_filled, _plainly_prefixed, _suffixed, _prefixed, _respelled, _compound):
        found = tuple(dict.fromkeys(way(word)))
        if found:
            return found
    return ()


def _by_letters(word: str) -> Phones:
    for ending in ("'s", "s'"):
        if word.endswith(ending):
            return _joined(sounded(word.removesuffix(ending)), ("S",))
    return sounded(word)


def _hyphenated(word: str) -> tuple[Phones, ...]:
    parts = [base_readings(part)[:3] for part in word.split("-") if part.strip("'")]
    return (
        tuple(functools.reduce(_side_by_side, chosen) for chosen in product(*parts))[:6]
        if parts
        else ()
    )


def _side_by_side(first: Phones, second: Phones) -> Phones:
    """Return a compound: the first stress leads, unless only the second part has more syllables."""
    if len(stresses(first)) == 1 and len(stresses(second)) > 1:
        return (*restressed(first, "2"), *second)
    return (*first, *(phone.replace("1", "2") for phone in second))


def _filled(word: str) -> Iterator[Phones]:
    """Yield readings of words with an apostrophe where a letter was: flatt'ring, heav'n, ev'n."""
    head, mark, tail = word.strip("'").partition("'")
    if not mark or word.endswith(_CLITICS) or head in ("o", "th", "e", "ne"):
        return
    before = sum(map(is_vowel, known_readings(head)[0])) if known_readings(head) else 0
    for know in (written_down, known_readings):
        for letter in ("e", "i", "o", "u", "a", "v", "ve", ""):
            for phones in know(head + letter + tail):
                yield _without(phones, before) if letter in tuple("eioua") else phones
            if know(head + letter + tail):
                return


def _without(phones: Phones, after: int) -> Phones:
    """Return phones with the first unstressed vowel elided that another one or a liquid follows."""
    vowels = [index for index, phone in enumerate(phones) if is_vowel(phone)]
    for index in vowels[max(after, 1) :] or vowels[1:]:
        if phones[index][-1] == "0":
            return (*phones[:index], phones[index][:2] + ELIDED, *phones[index + 1 :])
    return phones


@functools.cache
def _suffixes() -> list[tuple[str, Phones]]:
    """Return the endings with their sounds, the longest first."""
    every = ((suffix, tuple(sound.split())) for suffix, (sound,) in table("suffixes").items())
    return sorted(every, key=lambda each: -len(each[0]))


def _suffixed(word: str) -> Iterator[Phones]:
    for suffix, sound in _suffixes():
        stem = word.removesuffix(suffix)
        if stem == word or len(stem) < 2:
            continue
        for candidate in _stems(stem, suffix):
            stems = known_readings(candidate)
            if stems:
                yield from (_joined(phones, sound) for phones in stems)
                return


def _stems(stem: str, suffix: str) -> Iterator[str]:
    """Yield the words that a stem may be written for, likeliest first: happi-est, stopp'd."""
    if suffix == "s'":
        yield stem + "s"
    if suffix in _WHOLE or (suffix[0] not in "aeiouy'" and suffix != "st"):
        yield stem
        if stem.endswith("i"):
            yield stem[:-1] + "y"
        if suffix == "ly":
            yield from (stem + "le", stem + "l")
        return
    if _SHORT.search(stem):  # a short vowel would have doubled its consonant: hop'd, us'd
        yield stem + "e"
    if _LONG_DOUBLED.search(stem):
        yield stem[:-1]
    yield from (stem, stem + "e")
    if stem.endswith("i"):
        yield stem[:-1] + "y"
    if suffix == "ing" and stem.endswith("y"):
        yield stem[:-1] + "ie"
    if stem.endswith("ck") or stem[-1] == stem[-2]:
        yield stem[:-1]
    if suffix in ("y", "ably"):
        yield from (stem + "le", stem + "l")


def _joined(stem: Phones, suffix: Phones) -> Phones:
    """Return a stem with a suffix, whose S and D are voiced or made syllables by what is before."""
    last = stem[-1] if stem else "AH0"
    if suffix == ("S",):
        if last in _HISSING:
            return (*stem, "IH0", "Z")
        return (*stem, "S" if last in _VOICELESS else "Z")
    if suffix == ("D",):
        if last in ("T", "D"):
            return (*stem, "IH0", "D")
        return (*stem, "T" if last in _VOICELESS else "D")
    if suffix == ("S", "T") and last in _HISSING:
        return (*stem, "IH-", "S", "T")
    if suffix == ("T",) and last == "T":
        return stem
    if suffix and is_vowel(suffix[0]) and last == "L" and len(stem) > 2 and stem[-2] == "AH0":
        return (*stem[:-2], "L", *suffix) if suffix == ("IY0",) else (*stem, *suffix)
    if suffix and suffix[0] == last and suffix[0] in ("L", "N"):
        return (*stem, *suffix[1:])
    if len(suffix) == 2 and suffix[-1] == "R" and suffix[0][-1] == "1":
        stem = tuple(phone.replace("1", "2") for phone in stem)
    return (*stem, *suffix)


def _plainly_prefixed(word: str) -> Iterator[Phones]:
    return _prefixed(word, written_down)


def _prefixed(
    word: str, know: Callable[[str], tuple[Phones, ...]] | None = None
) -> Iterator[Phones]:
    for prefix, (sound,) in table("prefixes").items():
        rest = word.removeprefix(prefix)
        if rest == word or len(rest) < (2 if "'" in prefix else 4 - (len(prefix) > 1)):
            continue
        found = (know or known_readings)(rest)
        if found:
            yield from ((*sound.split(), *phones) for phones in found)
            return


def _respelled(word: str) -> Iterator[Phones]:
    modern = respellings("modern").get(word)
    if modern:
        yield from written_down(modern)
    for older, newer in _SPELLINGS:
        if older in word:
            yield from written_down(word.replace(older, newer))
            at = word.rindex(older)
            yield from written_down(word[:at] + newer + word[at + len(older) :])
    if word.endswith("e"):
        yield from written_down(word[:-1])
    if word.endswith(("'", "ie")):
        yield from written_down(word.rstrip("'"))


def _compound(word: str) -> Iterator[Phones]:
    for at in range(len(word) - 3, 2, -1):
        first, second = written_down(word[:at]), written_down(word[at:])
        if first and second:
            yield _side_by_side(first[0], second[0])
            return
