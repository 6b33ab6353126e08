"""Find the layout of a play and the lines that name a speaker, looking at the whole text at once.

A short line may be a name or a verse. What tells them apart is that names recur, are set in
capitals or indented, stand after a gap, and are followed by words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import NamedTuple

from coterie.language.drama.layouts import END, FRAMES, LAYOUTS, PAUSE, Heading, Layout, heading_of

_SMALL_WORDS = {"of", "and", "or", "the", "to", "with", "in", "de", "&"}
# What verses begin with, followed by a full stop, more often than names do.
_EXCLAMATIONS = {
    "Ay", "Nay", "No", "Yes", "Yea", "Well", "Sir", "O", "Oh", "I", "Come", "Go",
    "Farewell", "Peace",
    "Madam", "Why", "What", "So", "Good", "True", "Amen", "Never", "Nothing", "Away",
    "Enough", "Exit", "Exeunt", "Enter",
}  # fmt: skip
_SIGNALS = {"March", "Drum", "Drums", "Shout", "Trumpet", "Trumpets", "Cornets", "Storm"}
_OFTEN = 8  # this often a word with a full stop begins a line that is not set in: a name ("Aemil.")
_CONTENTS = 4  # this many headings with nothing between them are a list of contents


class Speaker(NamedTuple):
    """A line that names a speaker: with directions beside the name, and the words after it."""

    name: str
    asides: tuple[str, ...]
    words: str


class Names(NamedTuple):
    """What is known of a play before it is read.

    Attributes:
        layout: a name in `LAYOUTS`.
        headings: of acts, scenes and frames, by line number, counted from 1.
        speakers: by line number.
        contents: the line numbers of a list of contents.
    """

    layout: str
    headings: dict[int, Heading]
    speakers: dict[int, Speaker]
    contents: set[int]


class _Candidate(NamedTuple):
    number: int
    text: str
    speaker: Speaker
    strong: bool
    capital: bool
    indented: bool
    after_gap: bool


def find_names(lines: Sequence[tuple[int, str]]) -> Names:
    """Return the layout that most speakers of a text fit, with these speakers."""
    headings = {
        number: heading for number, line in lines if (heading := heading_of(line.strip("# ")))
    }
    found = {name: _speakers(layout, lines) for name, layout in LAYOUTS.items()}
    chosen = max(found, key=lambda name: len(found[name]))
    speakers = found[chosen]
    if not LAYOUTS[chosen].sure:  # an edition may print some speakers in the other way
        known = {speaker.name for speaker in speakers.values()}
        for name, others in found.items():
            if not LAYOUTS[name].sure and name != chosen:
                extra = {n: each for n, each in others.items() if each.name in known}
                speakers = extra | speakers
    return Names(chosen, headings, speakers, _contents(lines, headings))


def _contents(lines: Iterable[tuple[int, str]], headings: Container[int]) -> set[int]:
    """Return the lines of headings that follow one another with nothing between."""
    runs: list[list[int]] = [[]]
    for number, line in lines:
        if number in headings:
            runs[-1].append(number)
        elif line.strip() and runs[-1]:
            runs.append([])
    return {number for run in runs if len(run) >= _CONTENTS for number in run}


def _speakers(layout: Layout, lines: Sequence[tuple[int, str]]) -> dict[int, Speaker]:
    candidates = list(_candidates(layout, lines))
    if layout.sure:
        return {each.number: each.speaker for each in candidates}
    counts = Counter(each.speaker.name for each in candidates if each.strong)
    candidates = [_shortened(each, counts) for each in candidates]
    strong = [each for each in candidates if each.strong]
    often = Counter(each.speaker.name for each in candidates)
    counts = Counter(each.speaker.name for each in strong)
    set_in = 5 * sum(each.indented for each in strong) > 4 * len(strong)

    def accepted(each: _Candidate) -> bool:
        count = counts[each.speaker.name]
        if each.capital:
            return each.strong or count > 1
        if layout.alone:
            return (each.after_gap and (count > 1 or not each.speaker.words)) or count > 2
        if set_in and (each.indented or each.speaker.name.isdigit()):
            return each.indented
        known = (each.strong and count > 2) or (set_in and often[each.speaker.name] >= _OFTEN)
        return known and each.speaker.name not in _EXCLAMATIONS

    return {each.number: each.speaker for each in candidates if accepted(each)}


def _shortened(candidate: _Candidate, counts: Counter[str]) -> _Candidate:
    """Return a candidate whose name begins with a frequent one with that name alone.

    "Macb. The Prince of Cumberland: that is a step" is spoken by "Macb".
    """
    name, words = candidate.speaker.name, candidate.speaker.words
    known = next(
        (
            name[: at.start()]
            for at in re.finditer(r"\. ?|(?<=\d) ", name)
            if counts[name[: at.start()]] > max(2, counts[name])
        ),
        None,
    )
    if known is None or not words:
        return candidate
    said = candidate.text[len(known) :].lstrip(". ")
    return candidate._replace(speaker=candidate.speaker._replace(name=known, words=said))


def _candidates(layout: Layout, lines: Sequence[tuple[int, str]]) -> Iterator[_Candidate]:
    gap = True
    for at, (number, raw) in enumerate(lines):
        line = layout.prepare(raw.strip())
        following = lines[at + 1][1].strip() if at + 1 < len(lines) else ""
        asides = [aside[1] for aside in layout.aside.finditer(line)]
        bare = layout.aside.sub("", line).strip()
        found = layout.speaker.fullmatch(bare) if line[:1] != "[" else None
        staged = found and (layout.opening.match(found[1]) or found[1] in _SIGNALS)
        other = staged or END.fullmatch(line) or PAUSE.fullmatch(line) or _numbered(line)
        if found and not other:
            capital, indent = _is_capital(found[1]), len(raw) - len(raw.lstrip())
            indented = not layout.alone and 0 < indent < 5
            speaker = Speaker(found[1].removesuffix("."), tuple(asides), found[2])
            ended = capital or bare.endswith((".", ":"))
            told = bool(found[2] or following or layout.sure)
            strong = told and (capital or indented or gap)
            yield _Candidate(
                number, bare, speaker, strong, capital, indented, gap and ended and told
            )
        gap = not line or line.endswith("]")


def _numbered(line: str) -> bool:
    """Whether a line is the heading of an act or a scene with its number."""
    heading = heading_of(line)
    return heading is not None and (bool(heading.act) or heading.scene not in FRAMES)


def _is_capital(name: str) -> bool:
    words = [re.sub(r"'s\b|\bMc", "", word) for word in name.split() if word not in _SMALL_WORDS]
    return len("".join(words)) > 1 and all(word.isupper() or word.isdigit() for word in words)
