"""What is known about the plays and poems from outside: the table every parse is compared with.

Scenes per act follow the division of the Globe edition (1864), which the Moby text and so our
source have. They were set down apart from any parse and compared with a second text, the Gutenberg
plays of the package that the poems come from: it agrees in 33 of its 37 plays. The other four are
Cymbeline (that text has no acts III and IV), Macbeth (it heads only two scenes of act II), Measure
for Measure (it divides I.ii) and A Midsummer Night's Dream (it divides V.i). Edward III is not in
it and has its customary division. Prologues and epilogues are counted apart.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from coterie.language.drama.layouts import roman
from coterie.language.drama.tags import ROMAN


class PlayFacts(NamedTuple):
    """A play's title, scenes in each act, and framing scenes outside that count."""

    title: str
    scenes: tuple[int, ...]
    prologues: int = 0
    epilogues: int = 0
    induction: int = 0


class PoemFacts(NamedTuple):
    """A poem's title, number of parts, and verse lines (prose parts left out)."""

    title: str
    parts: int
    lines: int


PLAYS: dict[str, PlayFacts] = {
    "a-midsummer-nights-dream": PlayFacts("A Midsummer Night's Dream", (2, 2, 2, 2, 1)),
    "alls-well-that-ends-well": PlayFacts(
        "All's Well That Ends Well", (3, 5, 7, 5, 3), epilogues=1
    ),
    "antony-and-cleopatra": PlayFacts("Antony and Cleopatra", (5, 7, 13, 15, 2)),
    # Rosalind speaks the epilogue within the last scene; the source gives it a heading.
    "as-you-like-it": PlayFacts("As You Like It", (3, 7, 5, 3, 4), epilogues=1),
    "coriolanus": PlayFacts("Coriolanus", (10, 3, 3, 7, 6)),
    # The source prints the heading of II.iii as a speaker's name; mended in corpus_corrections.py.
    "cymbeline": PlayFacts("Cymbeline", (6, 5, 7, 4, 5)),
    # The source numbers IV.vi as a second IV.iv; mended in corpus_corrections.py.
    "edward-iii": PlayFacts("Edward III", (2, 2, 5, 9, 1)),
    "hamlet": PlayFacts("Hamlet", (5, 2, 4, 7, 2)),
    # The source prints the heading of III.iii as a speaker's name; mended in corpus_corrections.py.
    "henry-iv-part-1": PlayFacts("Henry IV, Part 1", (3, 4, 3, 4, 5)),
    # Rumour's induction is headed PROLOGUE and stands before the first act.
    "henry-iv-part-2": PlayFacts("Henry IV, Part 2", (3, 4, 2, 5, 5), prologues=1, epilogues=1),
    # The Chorus opens each act.
    "henry-v": PlayFacts("Henry V", (2, 4, 7, 8, 2), prologues=5, epilogues=1),
    "henry-vi-part-1": PlayFacts("Henry VI, Part 1", (6, 5, 4, 7, 5)),
    "henry-vi-part-2": PlayFacts("Henry VI, Part 2", (4, 4, 3, 10, 3)),
    "henry-vi-part-3": PlayFacts("Henry VI, Part 3", (4, 6, 3, 8, 7)),
    # The source lost the heading of I.i; put back in corpus_corrections.py.
    "henry-viii": PlayFacts("Henry VIII", (4, 4, 2, 2, 5), prologues=1, epilogues=1),
    "julius-caesar": PlayFacts("Julius Caesar", (3, 4, 3, 3, 5)),
    "king-john": PlayFacts("King John", (1, 1, 4, 3, 7)),
    "king-lear": PlayFacts("King Lear", (5, 4, 7, 7, 3)),
    "loves-labours-lost": PlayFacts("Love's Labour's Lost", (2, 1, 1, 3, 2)),
    "macbeth": PlayFacts("Macbeth", (7, 4, 6, 3, 8)),
    # The source has no title.
    "measure-for-measure": PlayFacts("Measure for Measure", (4, 4, 2, 6, 1)),
    "much-ado-about-nothing": PlayFacts("Much Ado About Nothing", (3, 3, 5, 2, 4)),
    "othello": PlayFacts("Othello", (3, 3, 4, 3, 2)),
    # Gower opens each act and closes the play; IV.iv is his as well but numbered as a scene.
    "pericles": PlayFacts("Pericles", (4, 5, 4, 6, 3), prologues=5, epilogues=1),
    "richard-ii": PlayFacts("Richard II", (4, 4, 4, 1, 6)),
    "richard-iii": PlayFacts("Richard III", (4, 4, 7, 5, 5)),
    "romeo-and-juliet": PlayFacts("Romeo and Juliet", (5, 6, 5, 5, 3), prologues=2),
    "the-comedy-of-errors": PlayFacts("The Comedy of Errors", (2, 2, 2, 4, 1)),
    # The source prints the heading of I.ii as words.
    "the-merchant-of-venice": PlayFacts("The Merchant of Venice", (3, 9, 5, 2, 1)),
    "the-merry-wives-of-windsor": PlayFacts("The Merry Wives of Windsor", (4, 3, 5, 6, 5)),
    # The source heads the induction PROLOGUE; mended in corpus_corrections.py.
    "the-taming-of-the-shrew": PlayFacts("The Taming of the Shrew", (2, 1, 2, 5, 2), induction=2),
    # The source lost the heading of I.ii; put back in corpus_corrections.py.
    "the-tempest": PlayFacts("The Tempest", (2, 2, 3, 1, 1), epilogues=1),
    "the-two-gentlemen-of-verona": PlayFacts("The Two Gentlemen of Verona", (3, 7, 2, 4, 4)),
    "the-winters-tale": PlayFacts("The Winter's Tale", (2, 3, 3, 4, 3)),
    "timon-of-athens": PlayFacts("Timon of Athens", (2, 2, 6, 3, 4)),
    "titus-andronicus": PlayFacts("Titus Andronicus", (1, 4, 2, 4, 3)),
    "troilus-and-cressida": PlayFacts("Troilus and Cressida", (3, 3, 3, 5, 10), prologues=1),
    "twelfth-night": PlayFacts("Twelfth Night", (5, 5, 4, 3, 1)),
}
"""The 36 plays of the First Folio, Pericles and Edward III, by the name of their document."""

POEMS: dict[str, PoemFacts] = {
    # 154 sonnets of 14 lines, but 99 has 15 and 126 has 12: 154 * 14 + 1 - 2.
    "sonnets": PoemFacts("The Sonnets", 154, 2155),
    # 47 stanzas of 7; one line is broken in two by the source and joined in corpus_corrections.py.
    "lovers-complaint": PoemFacts("A Lover's Complaint", 1, 329),
    # 21 poems where "Good night" and "Lord, how mine eyes" count as two, as here. The source leaves
    # out the first two, which are sonnets 138 and 144, and the last six ("Sonnets to Sundry Notes
    # of Music"). It marks one lost line, which is counted.
    "passionate-pilgrim": PoemFacts("The Passionate Pilgrim", 13, 190),
    # 13 stanzas of 4, then the Threnos, 5 of 3.
    "phoenix-and-the-turtle": PoemFacts("The Phoenix and the Turtle", 2, 67),
    # 265 stanzas of 7; dedication and argument are prose and two more parts.
    "rape-of-lucrece": PoemFacts("The Rape of Lucrece", 3, 1855),
}
"""The sonnets and four poems, by the name of their document. The source has no Venus and Adonis."""

SONNET_LINES = {99: 15, 126: 12}
"""Sonnets that do not have 14 lines."""

PROSE_PARTS = ("DEDICATION", "THE ARGUMENT")

_HEADING = re.compile(r"<(ACT|SCENE|PART)>([^<]*)</\1>")


def check_facts(name: str, text: str) -> list[str]:
    """Return how a document's tagged text differs from the table; an empty list means it agrees."""
    if name in PLAYS:
        return _check_play(name, PLAYS[name], text)
    if name in POEMS:
        return _check_poem(name, POEMS[name], text)
    return [f"{name}: nothing is known about this document"]


def _check_play(name: str, facts: PlayFacts, text: str) -> list[str]:
    problems = _check_title(name, f"<PLAY>{facts.title}</PLAY>", text)
    acts: list[tuple[str, list[str]]] = [("", [])]
    for kind, content in _HEADING.findall(text):
        if kind == "ACT":
            acts.append((content, []))
        else:
            acts[-1][1].append(content.split(".")[0])
    framing = [label for _, labels in acts for label in labels if not ROMAN.fullmatch(label)]
    found = {
        act: [label for label in labels if ROMAN.fullmatch(label)] for act, labels in acts if act
    }
    wanted = {"INDUCTION": _numbers(facts.induction)} if facts.induction else {}
    wanted |= {roman(act): _numbers(count) for act, count in enumerate(facts.scenes, start=1)}
    for act in wanted | found:
        if found.get(act) != wanted.get(act):
            problems.append(
                f"{name}: act {act} has scenes {found.get(act)}, known are {wanted.get(act)}"
            )
    for label, count in (("PROLOGUE", facts.prologues), ("EPILOGUE", facts.epilogues)):
        if framing.count(label) != count:
            problems.append(f"{name}: {framing.count(label)} × {label}, known are {count}")
    return problems


def _check_poem(name: str, facts: PoemFacts, text: str) -> list[str]:
    problems = _check_title(name, f"<POEM>{facts.title}</POEM>", text)
    parts: list[tuple[str, int]] = []
    for line in text.splitlines()[1:]:
        if heading := _HEADING.fullmatch(line):
            parts.append((heading[2], 0))
        elif line:
            part, count = parts.pop() if parts else ("", 0)
            parts.append((part, count + 1))
    lines = sum(count for part, count in parts if part not in PROSE_PARTS)
    if (len(parts), lines) != (facts.parts, facts.lines):
        problems.append(
            f"{name}: {len(parts)} parts and {lines} lines, known are {facts.parts} and"
            f" {facts.lines}"
        )
    if name == "sonnets":
        for number, (part, count) in enumerate(parts, start=1):
            if (part, count) != (roman(number), SONNET_LINES.get(number, 14)):
                problems.append(f"{name}: sonnet {number} is headed {part} and has {count} lines")
    return problems


def _check_title(name: str, wanted: str, text: str) -> list[str]:
    first = text.split("\n", 1)[0]
    return [] if first == wanted else [f"{name}: begins with {first!r}, not {wanted!r}"]


def _numbers(count: int) -> list[str]:
    return [roman(number) for number in range(1, count + 1)]
