"""Rhyme: how far apart two words end, what kind of rhyme that is, and how telling it is.

Sounds count from the last stressed vowel on. Words may also end on a promoted syllable (memory /
die) or with it unstressed (pleasure / measure), so the nearest pair of endings counts. The distance
is an edit distance over phones that knows which sounds are near, and which had merged for
Shakespeare (love / prove, tea / obey); 0 is a perfect rhyme. It was learned how likely each
distance is between rhyming lines and others: their logarithm is the evidence for a rhyme, in nats.
"""

from __future__ import annotations

import functools
import re
from typing import Literal, NamedTuple

from coterie.language.verse.costs import rhyme_evidence
from coterie.language.verse.dictionary import table
from coterie.language.verse.lines import key_of, words
from coterie.language.verse.phones import Phones, is_vowel, last_stressed
from coterie.language.verse.readings import readings

Kind = Literal["perfect", "slant", "eye", "identical", "none"]
SLANT = 0.3
_BEGINS = re.compile(
    r"\b(?:S [PTK] [LRWY]|S [PTKMNLWF]|[PBKGF] L|(?:[PBTDKGF]|TH|SH) R|(?:[TDKG]|TH|HH) W"
    r"|[A-Z]+ Y|[A-Z]+)$"
)
_FAR = 2.0  # more than any distance of endings
# An ending on a syllable without stress: after another one (mem-o-RY), or after the stressed one.
_PROMOTED, _LIGHT = 0.06, 0.2


class Rhyme(NamedTuple):
    """How two words rhyme.

    Attributes:
        kind: `perfect`, `slant` (near in sound), `eye` (in spelling alone), `identical` (the same
            sounds before the vowel too, as any word with itself: no rhyme), or `none`.
        distance: of the endings; 0 to about 1, more when they have nothing in common.
        evidence: logarithm of how much likelier the distance is between rhyming lines, in nats.
    """

    kind: Kind
    distance: float
    evidence: float

    @property
    def rhymes(self) -> bool:
        """Whether the words rhyme by sound."""
        return self.kind in ("perfect", "slant")


class _Ending(NamedTuple):
    onset: Phones
    rest: Phones
    cost: float


@functools.lru_cache(maxsize=1 << 14)
def endings(key: str) -> tuple[_Ending, ...]:
    """Return how a word may end for a rhyme: from its last stressed vowel on, or a promoted one."""
    found: dict[tuple[Phones, Phones], _Ending] = {}
    known = readings(key)
    stressed = [reading for reading in known if set(reading.stresses) & {"1", "2"}]
    for reading in stressed or known:
        phones = reading.phones
        at = last_stressed(phones)
        vowels = [index for index, phone in enumerate(phones) if is_vowel(phone)] or [0]
        starts = {at: 0.0}
        if vowels[-1] != at and phones[vowels[-1]][-1] != "-":
            after = sum(vowel > at for vowel in vowels)
            bare = phones[vowels[-1]][-1] == "0"
            starts[vowels[-1]] = (_PROMOTED if after > 1 else _LIGHT) if bare else 0.0
        for start, cost in starts.items():
            ending = _Ending(_onset(phones, start), _bare(phones[start:]), cost)
            other = found.get(ending[:2])
            if other is None or cost < other.cost:
                found[ending[:2]] = ending
    return tuple(found.values())


def _onset(phones: Phones, start: int) -> Phones:
    """Return the consonants of a vowel's syllable: as many before it as may begin a word."""
    first = start
    while first > 0 and not is_vowel(phones[first - 1]):
        first -= 1
    found = _BEGINS.search(" ".join(phones[first:start]))
    return tuple(found[0].split()) if found else ()


def _bare(phones: Phones) -> Phones:
    """Return phones without stress; a stressed ER is a vowel and an R, as in "care" and "part"."""
    text = " ".join(phones).replace("ER1", "ER R").replace("ER2", "ER R")
    return tuple(phone[:2] if is_vowel(phone) else phone for phone in text.split())


@functools.cache
def _near() -> dict[tuple[str, str], float]:
    found = {}
    for pair, (cost,) in table("sounds").items():
        first, second = pair.split("/")
        found[first, second] = found[second, first] = float(cost)
    return found


def _differ(first: str, second: str) -> float:
    """Return how far two phones are apart: 0 the same, 1 nothing in common."""
    if first == second:
        return 0.0
    known = _near().get((first, second))
    if known is not None:
        return known
    return 0.7 if is_vowel(first) == is_vowel(second) else 1.0


@functools.lru_cache(maxsize=1 << 16)
def _edits(first: Phones, second: Phones) -> float:
    """Return the distance of two endings: stressed vowels against each other, the rest by edits."""
    vowel = 1.2 * _differ(first[0], second[0]) if first and second else 1.0
    rest_a, rest_b = first[1:], second[1:]
    row = [_gaps(rest_b[:count]) for count in range(len(rest_b) + 1)]
    for phone in rest_a:
        new = [row[0] + _gap(phone)]
        for other, each in enumerate(rest_b):
            new.append(min(row[other] + _differ(phone, each) * 0.8,
                           row[other + 1] + _gap(phone), new[-1] + _gap(each)))  # fmt: skip
        row = new
    return vowel + row[-1]


def _gap(phone: str) -> float:
    if phone in ("AH", "IH"):
        return 0.25
    return 0.6 if is_vowel(phone) else 0.4


def _gaps(phones: Phones) -> float:
    return sum(map(_gap, phones))


def distance(first: str, second: str) -> float:
    """Return how far apart two words end, 0 for a perfect rhyme.

    Args:
        first: a word as `lines.key_of` gives it.
        second: the same.
    """
    pairs = ((a, b) for a in endings(first) for b in endings(second))
    costs = [_edits(a.rest, b.rest) + a.cost + b.cost for a, b in pairs if a.rest and b.rest]
    return min(costs, default=_FAR)


@functools.lru_cache(maxsize=1 << 14)
def rhyme(first: str, second: str) -> Rhyme:
    """Return how two words rhyme, in either order and in any case.

    Args:
        first: the last word of a line.
        second: that of another.
    """
    first, second = key_of(first).strip("'"), key_of(second).strip("'")
    if not first or not second:
        return Rhyme("none", _FAR, evidence(_FAR))
    far = distance(first, second)
    weight = evidence(far)
    if first == second or _same_sounds(first, second):
        return Rhyme("identical", far, weight)
    if far <= 1e-9:
        return Rhyme("perfect", far, weight)
    if far <= SLANT:
        return Rhyme("slant", far, weight)
    return Rhyme("eye" if _same_spelling(first, second) else "none", far, weight)


def _same_sounds(first: str, second: str) -> bool:
    """Whether two words sound alike from before the vowel on: light / delight, month / twelvemonth.

    So do their usual endings, or else all those that are as near as any.
    """
    pairs = [(a, b) for a in endings(first) for b in endings(second)]
    found = [(a[:2] == b[:2], _edits(a.rest, b.rest) + a.cost + b.cost) for a, b in pairs
             if a.rest and b.rest]  # fmt: skip
    near = min((cost for _, cost in found), default=_FAR)
    return bool(found) and (found[0][0] or all(same for same, cost in found if cost == near))


def _same_spelling(first: str, second: str) -> bool:
    """Whether two words have the letters from their last vowels on in common: bough / cough."""
    tail = 0
    while tail < min(len(first), len(second)) and first[-tail - 1] == second[-tail - 1]:
        tail += 1
    shared = first[len(first) - tail :]
    return tail >= 2 and any(letter in "aeiouy" for letter in shared.rstrip("e"))


def evidence(far: float) -> float:
    """Return the logarithm of how much likelier a distance is between lines that rhyme, in nats."""
    bins = rhyme_evidence()
    for edge, weight in bins:
        if far <= edge:
            return weight
    return bins[-1][1]


def last_word(line: str) -> str:
    """Return the last word of a line as it is looked up; none gives the empty string."""
    found = words(line)
    return found[-1].key.strip("'") if found else ""
