"""Misprints of the two sources, each mended by one small replacement that must fit exactly.

The Markdown plays were made by a program from the Moby text: it took names with a hyphen or an
apostrophe for words of the speech before, tore names that the page broke in two, lost a few
headings, and kept misprints of its source. `apply` replaces each pattern and insists on the number
of places, so that another edition of the source cannot be changed by accident.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from coterie.foundation.errors import DataError


class Correction(NamedTuple):
    """A regular expression (`^` and `$` match at every line), what to write, and how often."""

    pattern: str
    replacement: str
    places: int = 1


def _named(prefix: str, places: int) -> Correction:
    """A speaker's name that was taken for the first words of a line."""
    return Correction(rf"^({prefix}):? (?=\S)", r"\n**\1**\n", places)


def _torn(first: str, second: str, places: int) -> Correction:
    """A speaker's name whose first part was left standing on a line before."""
    return Correction(rf"^{first}\n\n\*\*{second}\*\*", rf"\n**{first} {second}**", places)


def _typo(wrong: str, right: str) -> Correction:
    return Correction(re.escape(wrong), right)


def _unspoken(first: str, rest: str) -> Correction:
    """The beginning of a verse that was taken for a speaker's name."""
    return Correction(rf"\n\n\*\*{first}\*\* *\n(?={rest})", rf"  \n{first} ")


CORRECTIONS: dict[str, tuple[Correction, ...]] = {
    "a-midsummer-nights-dream": (_typo("**HERNIA**", "**HERMIA**"),),
    "as-you-like-it": (_typo("C ourage", "Courage"), _typo("wraps me m a", "wraps me in a")),
    "loves-labours-lost": (
        _torn("DON ADRIANO DE", "ARMADO", 1),
        _unspoken("Here stand I", "lady"),
    ),
    "much-ado-about-nothing": (_typo("hi s glory", "his glory"),),
    "the-comedy-of-errors": (
        Correction(r"\*\*ANTIPHOLUS\*\*(  \n.*)\nOF EPHESUS$", r"**ANTIPHOLUS OF EPHESUS**\1", 1),
        _typo("Ill d eeds", "Ill deeds"),
    ),
    "the-merry-wives-of-windsor": (_typo("SHALLOW & PAGE & & C", "SHALLOW & PAGE & others"),),
    "twelfth-night": (
        Correction(r"^ANTONIO: ", "\n**ANTONIO**\n"),
        _typo("yellow stocking s,", "yellow stockings,"),
    ),
    "the-two-gentlemen-of-verona": (_typo("Bu t yet", "But yet"),),
    "edward-iii": (Correction(r"(?s)(^## ACT IV.*?^### SCENE V\..*?^### SCENE )IV\.", r"\1VI."),),
    "henry-iv-part-1": (Correction(r"^\*\*Scene III\*\* *\n", "### SCENE III. "),),
    "henry-iv-part-2": (
        _named("Lord Chief-Justice", 56),
        _torn("LADY", "NORTHUMBERLAND", 2),
        Correction(r"^_Spoken by a Dancer_$", "_Spoken by a Dancer_\n\n**Dancer**"),
        _typo("th e peace", "the peace"),
    ),
    "henry-v": (_typo("thy c rystals", "thy crystals"),),
    "henry-vi-part-1": (
        _torn("BISHOP", "OF WINCHESTER", 23),
        _torn("CARDINAL", "OF WINCHESTER", 4),
        _torn("COUNTESS", "OF AUVERGNE", 13),
        _torn("RICHARD", "PLANTAGENET", 27),
        _named("Master-Gunner", 2),
        _named("(?:First |Second |Third )?Serving-[Mm][ae]n", 10),
        _typo("**SU FFOLK**", "**SUFFOLK**"),
    ),
    "henry-vi-part-2": (
        _typo("**First Murder**", "**First Murderer**"),
        _typo("h is brother's", "his brother's"),
    ),
    "henry-vi-part-3": (_typo("sea sha$l suck", "sea shall suck"),),
    "henry-viii": (
        # The heading of the first scene is lost; Moby and the Globe edition have this one.
        Correction(
            r"^(?=_Enter NORFOLK at one door;)",
            "### SCENE I. London. An ante-chamber in the palace.\n\n",
        ),
        _named("Old Lady", 1),
        _typo("exhalation m the", "exhalation in the"),
        _typo("I shal l dwell", "I shall dwell"),
    ),
    "julius-caesar": (
        _unspoken("This way will I", "disrobe"),
        _typo("he t hat lies", "he that lies"),
    ),
    "richard-ii": (_typo("if n ot,", "if not,"),),
    "richard-iii": (
        Correction(r"^(Ghosts?)\n\n\*\*(of [^*]+)\*\*", r"**\1 \2**", 4),
        _typo("**Second murderer**", "**Second Murderer**"),
        _typo("Who m eets us", "Who meets us"),
    ),
    "king-lear": (_typo("**LEAR**", "**KING LEAR**"),),
    "measure-for-measure": (
        _unspoken("As long as you or I", "yet he"),
        Correction(r"^_Boy sings_$", "**Boy**\n_\\[Sings]_"),
        Correction(r"\*\*POMPHEY\*\*", "**POMPEY**", 2),
        _typo("A s mine is", "As mine is"),
    ),
    "the-taming-of-the-shrew": (
        Correction(r"^## PROLOGUE$", "## INDUCTION"),
        _named("ALL SERVING-MEN", 1),
        _typo("**KATARINA**", "**KATHARINA**"),
        _typo("younges t daughter", "youngest daughter"),
    ),
    "titus-andronicus": (
        _typo("**MARCUS**", "**MARCUS ANDRONICUS**"),
        _typo("we wil l make", "we will make"),
    ),
    "the-winters-tale": (_typo("**Shepard**", "**Shepherd**"),),
    "cymbeline": (
        Correction(r"^\*\*Scene III\*\* *\n", "### SCENE III. "),
        _typo("O god s and goddesses", "O gods and goddesses"),
        _typo("Our Britain s harts", "Our Britain's harts"),
        _typo("throw stone s,", "throw stones,"),
    ),
    "pericles": (_typo("not doin g so", "not doing so"),),
    "the-tempest": (
        # The heading of the second scene is lost; Moby and the Globe edition have this one.
        Correction(
            r"^(?=_Enter PROSPERO and MIRANDA_$)",
            "### SCENE II. The island. Before PROSPERO'S cell.\n\n",
        ),
        Correction(r"^SPOKEN BY PROSPERO *\n", "_Spoken by PROSPERO_\n\n**PROSPERO**\n"),
    ),
    "othello": (
        Correction(r"^CASSIO: ", "\n**CASSIO**\n"),
        _typo("**Second Gentlemen**", "**Second Gentleman**"),
        _typo("Saints m your", "Saints in your"),
    ),
    "romeo-and-juliet": (_typo("Ah. mocker", "Ah, mocker"),),
    "timon-of-athens": (
        _torn("Varro's", "First Servant", 5),
        _torn("Varro's", "Second Servant", 3),
        _named("(?:Varro|Lucilius|Isidore)'s? Servants?", 32),
        Correction(r"^Enter FLAMINIUS\. *$", "\n_Enter FLAMINIUS_\n"),
        Correction(r"^(?=O blessed breeding sun,)", "**TIMON**\n"),
        _typo("Hav e wander'd", "Have wander'd"),
    ),
    # Sonnet 128 is headed as a second 133.
    "sonnets": (Correction(r"^CXXXIII$(?=\n\nHow oft when thou, my music)", "CXXVIII"),),
    "lovers-complaint": (Correction(r"^(Love's arms .* 'gainst)\nshame\.$", r"\1 shame.", 1),),
}
"""Corrections of each text, by the name of its document."""


def correct(name: str, text: str) -> str:
    """Return the source of the document `name` with its corrections made.

    Raises:
        DataError: a pattern fits another number of places than in the edition it was made for.
    """
    for pattern, replacement, places in CORRECTIONS.get(name, ()):
        text, found = re.subn(pattern, replacement, text, flags=re.MULTILINE)
        if found != places:
            raise DataError(
                f"{name}: the correction {pattern!r} fits {found} places, not {places}.",
                hint="Use the pinned edition of the source, or revise corpus_corrections.py.",
            )
    return text
