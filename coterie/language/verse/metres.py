"""Metres by name: rows of weak and strong positions, kept as data."""

from __future__ import annotations

import functools
from typing import NamedTuple

from coterie.foundation.errors import UserError, nearest
from coterie.language.verse.dictionary import TABLES


class Metre(NamedTuple):
    """A metre: the patterns that a line may have, for each line of a stanza in turn.

    Attributes:
        name: as it is asked for.
        patterns: of weak ("w") and strong ("s") positions, or a number of syllables; a line takes
            the one that suits it.
        feminine: whether a weak syllable may follow the last strong position.
        lines: for stanzas of unlike lines, the index of the pattern of each in turn; else empty.
        syllables: for forms that count syllables alone, how many each line has in turn.
    """

    name: str
    patterns: tuple[str, ...]
    feminine: bool = True
    lines: tuple[int, ...] = ()
    syllables: tuple[int, ...] = ()

    def of_line(self, index: int) -> Metre:
        """Return the metre of a line of a stanza, counted from 0."""
        if self.syllables:
            due = self.syllables[index % len(self.syllables)]
            return self._replace(patterns=(str(due),), syllables=())
        if not self.lines:
            return self
        return self._replace(
            patterns=(self.patterns[self.lines[index % len(self.lines)]],), lines=()
        )


@functools.cache
def metres() -> dict[str, Metre]:
    """Return all metres by name, in the order of their table."""
    found = {}
    for line in (TABLES / "metres.txt").read_text("utf-8").splitlines():
        name, *rest = line.partition("#")[0].split()[:1] + line.partition("#")[0].split()[1:] or [
            ""
        ]
        if not name:
            continue
        patterns = tuple(each for each in rest if set(each) <= {"w", "s"})
        flags = dict(each.split("=") for each in rest if "=" in each)
        found[name] = Metre(
            name,
            patterns,
            feminine=flags.get("feminine", "yes") == "yes",
            lines=tuple(int(each) for each in flags.get("lines", "")),
            syllables=tuple(int(each) for each in flags.get("syllables", "")),
        )
    return found


def metre_of(metre: str | Metre) -> Metre:
    """Return a metre by its name; spaces and underscores are as good as hyphens.

    Raises:
        UserError: there is none of that name.
    """
    if isinstance(metre, Metre):
        return metre
    name = metre.strip().lower().replace(" ", "-").replace("_", "-")
    if name not in metres():
        raise UserError(f"There is no metre “{metre}”; {nearest(name, metres())}")
    return metres()[name]
