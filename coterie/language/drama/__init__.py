"""Plays and poems: read their sources, write them as tagged text.

Reading order: `structure` (what a play is made of), `tags` (the grammar of tagged text), `layouts`
and `names` (how editions set plays), `reader` and `poems` (the readers), `cleaning` (any text).
"""

from coterie.language.drama.tags import DRAMA_TAGS, check_tagged, plain, to_tagged

__all__ = ["DRAMA_TAGS", "check_tagged", "plain", "to_tagged"]
