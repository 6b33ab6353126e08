"""What verse may read a word as: its plain readings, and those that a licence gives.

A licence has a name, which scansion reports and charges for: `elision` (heav'n, glorious as two),
`contraction` ("feelest" as one), `expansion` ("-tion" as two, "fire" as two), `sounded -ed`,
`shifted stress` ("complete" with its stress first). Vowels that are elided stay, marked "-".
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

from coterie.language.verse.dictionary import table
from coterie.language.verse.morphology import base_readings
from coterie.language.verse.phones import ELIDED, Phones, restressed, stresses, syllables


class Reading(NamedTuple):
    """How a word may sound, and which licences that takes."""

    phones: Phones
    licences: tuple[str, ...] = ()

    @property
    def stresses(self) -> str:
        """One digit for each syllable; "-" for an elided one."""
        return stresses(self.phones)


_V0 = "[A-Z]{2}[02]"
# Unstressed vowels that verse may pass over, by what stands around them.
_ELISIONS = [
    re.compile(pattern)
    for pattern in (
        rf"\b(?:IY|IH|UW|OW)0(?= (?:R )?{_V0})",  # glo-rious, vir-tuous, fol-lowing
        r"(?<=[A-Z][A-Z]1 )(?:AH|ER|IH|IY)0",  # be-ing, power, flower, di-al
        rf"\b(?:ER0(?= {_V0})|(?:AH|IH|UH|EH)0(?= [RLNM] {_V0}))",  # flatt'ring, ev'ry, gen'ral
        r"(?<=1 V )(?:[AI]H0(?= [NL])|ER0)",  # heaven, even, devil, ever, never
        r"(?<=1 DH )ER0",  # whether, either
        r"(?<=1 R )(?:AH|IH)0(?= T)",  # spirit
        r"(?<=1 [LKZP] )AH0(?= N\b)",  # fall'n, ta'en, pris'n, op'n
        rf"(?<=1 [A-Z] )(?:AH|IH)0(?= [STK] (?:T R )?{_V0})",  # med'cine
        r"(?<=1 N [DT] )ER0",  # wonder, under (before a vowel)
        r"^(?:AH|IH)0(?= [^N] )",  # 'gainst, 'bove
    )
]
_EST = re.compile(r"\b(?:IH|AH)0(?= S T$)")
_ION = re.compile(r"\b(SH|CH|ZH|JH)( AH0)")
_YOD = re.compile(r"\b(L|N) Y( AH0| ER0)")
_SPELLED_ION = re.compile(r"[tscxg]i[oea]|[sc]hi?[oe]n|eo[un]|ti?ure")
_LONG_R = re.compile(r"\b(AY1|AW1|OY1)( R)")
_LEAD = re.compile(r"\b(AY1|AW1) ER0 ")
_ED = re.compile(r"(?:ed|['’]d)$")
MOST = 12


@functools.lru_cache(maxsize=1 << 16)
def readings(word: str) -> tuple[Reading, ...]:
    """Return what a word may be read as in verse, the usual reading first; never none.

    Args:
        word: in lower case, with plain apostrophes, as `lines.words` cuts it.
    """
    found: dict[Phones, Reading] = {}
    for phones in base_readings(word):
        found.setdefault(phones, Reading(phones))
    plain = list(found.values())
    for reading in plain:
        for other in (
            *_shifted(word, reading),
            *_expanded(word, reading),
            *_contracted(word, reading),
        ):
            found.setdefault(other.phones, other)
    for _ in range(2):
        for reading in list(found.values())[:MOST]:
            for other in _elided(reading):
                found.setdefault(other.phones, other)
    return _told_apart(list(found.values()))


def _told_apart(found: list[Reading]) -> tuple[Reading, ...]:
    """Return readings without those that scan as an earlier one and rhyme as it."""
    kept: dict[tuple[str, Phones], Reading] = {}
    for reading in found:
        if syllables(reading.phones):
            kept.setdefault((reading.stresses, reading.phones[-4:]), reading)
    return tuple(list(kept.values())[:MOST]) or tuple(found[:1])


def _elided(reading: Reading) -> list[Reading]:
    text, found = " ".join(reading.phones), []
    if syllables(reading.phones) < 2 or reading.licences.count("elision") > 1:
        return []
    for pattern in _ELISIONS:
        for match in pattern.finditer(text):
            at = match.start() + 2
            cut = tuple((text[:at] + ELIDED + text[at + 1 :]).split())
            if "-" not in stresses(cut).replace("-", "", 1):
                found.append(Reading(cut, (*reading.licences, "elision")))
    return found


def _contracted(word: str, reading: Reading) -> list[Reading]:
    if not word.endswith(("est", "edst")) or syllables(reading.phones) < 2:
        return []
    text = " ".join(reading.phones)
    cut = _EST.sub(lambda found: found[0][:2] + ELIDED, text)
    return [Reading(tuple(cut.split()), ("contraction",))] if cut != text else []


def _expanded(word: str, reading: Reading) -> list[Reading]:
    text = " ".join(reading.phones)
    found = []
    if _SPELLED_ION.search(word):
        found.append(_ION.sub(_softened, text))
    if re.search(r"[ln]i[oea]|[ln]ie", word):
        found.append(_YOD.sub(r"\1 IY0\2", text))
    found.append(_LONG_R.sub(r"\1 ER0", text))
    new = [Reading(tuple(each.split()), ("expansion",)) for each in found if each != text]
    if word.endswith("ed") and reading.phones[-1] in ("D", "T") and not text.endswith(
        ("T IH0 D", "D IH0 D", "T AH0 D", "D AH0 D")
    ) and len(reading.phones) > 2 and not text.endswith(("IH0 D", "AH0 D", "EH1 D")):  # fmt: skip
        new.append(Reading((*reading.phones[:-1], "IH0", "D"), ("sounded -ed",)))
    return new


def _softened(found: re.Match[str]) -> str:
    sound = {"SH": "S IY0", "CH": "CH IY0", "ZH": "ZH IY0", "JH": "JH IY0"}[found[1]]
    return sound + found[2]


def _shifted(word: str, reading: Reading) -> list[Reading]:
    patterns = table("stress").get(word, ())
    return [
        Reading(restressed(reading.phones, pattern), ("shifted stress",))
        for pattern in patterns
        if len(pattern) == len(reading.stresses) and pattern != reading.stresses
    ]
