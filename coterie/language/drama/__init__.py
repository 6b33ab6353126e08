"""Plays and poems: read their sources, write them as tagged text, know how many scenes they have.

Reading order: `structure` (what a play is made of), `tags` (the grammar of tagged text),
`markdown` and `poems` (the readers), `corrections` (misprints of the source), `facts` (the table
that every parse is compared with).
"""

from coterie.language.drama.structure import (
    Act,
    Direction,
    Line,
    Part,
    Play,
    Poem,
    Problem,
    Scene,
    Speech,
    StanzaBreak,
)
from coterie.language.drama.tags import DRAMA_TAGS, check_tagged, plain, to_tagged

__all__ = [
    "DRAMA_TAGS",
    "Act",
    "Direction",
    "Line",
    "Part",
    "Play",
    "Poem",
    "Problem",
    "Scene",
    "Speech",
    "StanzaBreak",
    "check_tagged",
    "plain",
    "to_tagged",
]
