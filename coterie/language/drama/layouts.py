"""How editions of plays set their lines: the grammar of headings, and the layouts as data.

A layout says how a speaker is set and which unmarked lines open a stage direction; headings and
bracketed or emphasised directions are the same in all.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from coterie.language.drama.typography import tidy_line

FRAMES = ("PROLOGUE", "EPILOGUE")
NEVER = re.compile(r"(?!)")

# English and Latin words for the numbers from one on.
_ORDINALS = (
    "FIRST|PRIM(?:US|A)", "SECOND|SECUND(?:US|A)", "THIRD|TERTI(?:US|A)", "FOURTH|QUART(?:US|A)",
    "FIFTH|QUINT(?:US|A)", "SIXTH|SEXT(?:US|A)", "SEVENTH|SEPTIM(?:US|A)",
    "EIGHTH|OCTA[UV](?:US|A)", "NINTH|NON(?:US|A)", "TENTH|DECIM(?:US|A)",
)  # fmt: skip
_NUMBER = rf"(?:[IVXLC]+|\d{{1,2}}|{'|'.join(_ORDINALS)})\b"
_ACT = rf"ACT(?:[UV]S)?\s+({_NUMBER})|(?:THE )?({_NUMBER}) ACT\b|(INDUCTION)\b"
_SCENE = rf"SC(?:O?A?E?N[EA]|\.)\s*({_NUMBER})(?:[,:;.\s-]+(\S.*))?"
_HEADING = re.compile(rf"(?:{_ACT})?[.,:;\s-]*(?:{_SCENE})?[.,:;-]*", re.I)
_FRAME = re.compile(r"(?:THE )?(PROLOGUE|EPILOGUE)(?:[.:]\s*(.*))?", re.I)
END = re.compile(r"\W*(?:FINIS\b.*|(?:THE )?END(?: OF (?:THE|ACT)\b.*)?\W*)", re.I)
PAUSE = re.compile(r"(?:THE |[A-Z]+'S )?(?:SONG|song)\.|DUMB SHOW\.")


class Heading(NamedTuple):
    """What a heading opens: an act, a scene, or both; a frame is a scene without a number."""

    act: str
    scene: str
    place: str


def heading_of(line: str) -> Heading | None:
    """Return what a line opens, None if it is no heading of an act, a scene or a frame."""
    line = tidy_line(line)
    if found := _FRAME.fullmatch(line):
        return Heading("", found[1].upper(), found[2] or "")
    found = _HEADING.fullmatch(line)
    act = found and (found[1] or found[2] or found[3])
    if not found or not (act or found[4]):
        return None
    if (found[5] or "")[:1].islower() and not line[:3].isupper():  # "Scene second, then", a verse
        return None
    return Heading(_roman_of(act or ""), _roman_of(found[4] or ""), found[5] or "")


def _roman_of(number: str) -> str:
    """Return a number in any of its ways as a Roman numeral, other words as they are."""
    number = number.upper()
    for value, words in enumerate(_ORDINALS, start=1):
        if re.fullmatch(words, number):
            return roman(value)
    return roman(int(number)) if number.isdigit() and int(number) else number


def roman(number: int) -> str:
    """Return a number from 1 to 399 in Roman numerals."""
    assert 0 < number < 400
    numeral = ""
    for value, letters in (
        (100, "C"), (90, "XC"), (50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"),
        (1, "I"),
    ):  # fmt: skip
        numeral += letters * (number // value)
        number %= value
    return numeral


_NESTED = re.compile(r"(\[[^\[\]]*)\[([^\[\]]*)\]")
_BRACKETS = str.maketrans("{}", "[]")
_WORD = r"(?:[A-Z\d][\w'.]*|of|and|or|the|to|with|in|de|&)"
_NAME = rf"([A-Z\d][\w'.]*(?:(?:,? |-|/){_WORD}){{0,6}}?)"
# "1 Thou art going": the First Folio gives some nameless persons a number alone.
_ENDED = r"(?:[.:]|(?<=^\d)(?=\s+['A-Z][\w']*[^\w.:']))"
_STAGE_WORD = re.compile(
    r"(?:Enter|Exit|Exeunt|Exe[uv]nt|Re-?enter|Man[eé]n?t|Alar(?:um|m)s?|Flou?rish|Senn?et)\b[^?!]*"
)


class Layout(NamedTuple):
    """How one kind of edition sets a play.

    Attributes:
        speaker: a line that names a speaker; its groups are the name and the words after it.
        sure: whether every such line is a speaker; otherwise its name must recur or be in capitals.
        alone: whether the name has the line to itself.
        opening: an unmarked line that opens a direction, which lasts to the next empty line.
        editorial: a verse with words in brackets that belong to it.
        aside: a direction inside a spoken line.
    """

    speaker: re.Pattern[str]
    sure: bool = False
    alone: bool = True
    opening: re.Pattern[str] = NEVER
    editorial: re.Pattern[str] = NEVER
    aside: re.Pattern[str] = re.compile(r"(?:(?<!\w)|(?=\[[A-Z]))\[([^\[\]]*)\]\.?(?!\w)")

    def prepare(self, line: str) -> str:
        """Return a line with brackets of one kind and none inside another, where they matter."""
        if self.aside is NEVER:
            return line
        line = line.translate(_BRACKETS)
        while (flat := _NESTED.sub(r"\1\2", line)) != line:
            line = flat if "]" in flat else flat + "]"
        return line


LAYOUTS: dict[str, Layout] = {
    "markdown": Layout(
        re.compile(r"\*\*(.+?)\*\*()"),
        sure=True,
        opening=re.compile(r"\d+\\?\.\s.*"),
        editorial=re.compile(r"(.+?)\s_+\\?\[([^\]]*)\]_"),
        aside=NEVER,
    ),
    "block": Layout(re.compile(rf"{_NAME}[.:]?()"), opening=_STAGE_WORD),
    "inline": Layout(
        re.compile(rf"{_NAME}{_ENDED}\s*(?:--)?\s*(\S.*)"), alone=False, opening=_STAGE_WORD
    ),
}
"""By name; where two fit, the one that more lines fit is taken."""
