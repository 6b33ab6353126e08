"""What verse is learned from and measured on: sonnets, their lines shuffled, windows of prose."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

from coterie.data.corpus import shakespeare
from coterie.language.verse.lines import words
from coterie.language.verse.morphology import base_readings
from coterie.language.verse.phones import syllables

TAUGHT = 77  # sonnets 1-77 teach, 78-154 measure
PROSE_TAUGHT = (
    "the-merry-wives-of-windsor", "much-ado-about-nothing", "henry-iv-part-2", "henry-v",
    "alls-well-that-ends-well", "troilus-and-cressida", "measure-for-measure", "hamlet",
)  # fmt: skip
PROSE_MEASURED = ("as-you-like-it", "henry-iv-part-1", "twelfth-night")


def sonnets() -> list[list[str]]:
    """Return the 154 sonnets, each a list of its lines."""
    text = next(each.text for each in shakespeare() if each.name == "sonnets")
    parts = re.split(r"<PART>[^<]*</PART>\n", text)[1:]
    return [[line.strip() for line in part.splitlines() if line.strip()] for part in parts]


def shuffled(line: str, randomness: random.Random) -> str:
    """Return a line with its words in another order; its punctuation stays where it was."""
    found = words(line)
    order = [word.text for word in found]
    for _ in range(20):
        randomness.shuffle(order)
        if order != [word.text for word in found]:
            break
    pieces, end = [], 0
    for word, new in zip(found, order, strict=True):
        pieces += [line[end : word.start], new]
        end = word.start + len(word.text)
    return "".join([*pieces, line[end:]])


def prose_windows(plays: Sequence[str], length: int = 10) -> list[str]:
    """Return runs of words of prose that have ten syllables by their usual readings.

    Prose speeches are those whose lines run on in lower case, which no line of verse does.
    """
    found = []
    for document in shakespeare():
        if document.name in plays:
            for speech in _prose_speeches(document.text):
                found += list(_windows(speech, length))
    return found


def _prose_speeches(text: str) -> Iterator[str]:
    for speech in re.split(r"<SPEAKER>[^<]*</SPEAKER>\n|<(?:ACT|SCENE)>.*\n", text):
        lines = [re.sub(r"<[^>]*>[^<]*</[^>]*> ?", "", line) for line in speech.splitlines()]
        lines = [line for line in lines if line.strip()]
        lower = sum(line[0].islower() for line in lines[1:])
        if len(lines) > 2 and lower > 0.6 * (len(lines) - 1):
            yield " ".join(lines)


def _windows(text: str, length: int) -> Iterator[str]:
    """Yield windows that follow one another; a run that cannot end at the length gives none."""
    found, first, count = words(text), 0, 0
    for index, word in enumerate(found):
        count += syllables(base_readings(word.key)[0])
        if count < length:
            continue
        if count == length:
            yield text[found[first].start : word.start + len(word.text)]
        first, count = index + 1, 0


def rhyme_pairs(
    poems: Sequence[Sequence[str]], within: int = 3
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return the last words of lines that rhyme in sonnets, and of near lines that do not."""
    rhyming, others = [], []
    for lines in poems:
        letters = {12: "AABBCCDDEEFF", 15: "ABABACDCDEFEFGG"}.get(len(lines), "ABABCDCDEFEFGG")
        ends = [words(line)[-1].key.strip("'") for line in lines]
        for second, first in ((b, a) for b in range(len(ends)) for a in range(b)):
            if letters[first] == letters[second]:
                rhyming.append((ends[first], ends[second]))
            elif second - first <= within:
                others.append((ends[first], ends[second]))
    return rhyming, others
