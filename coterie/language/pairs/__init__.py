"""Pairs of words that mean the same, one a line: the older or rarer form, and the usual one.

`archaic` holds words (thou, you), `orthography` spellings (lov'd, loved; vpon, upon; colour,
color). A usual form may stand for several older ones; the first of them is its own counterpart.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Literal

Table = Literal["archaic", "orthography"]


def pairs_of(table: Table) -> dict[str, str]:
    """Return the usual form of each other one, in lower case, in the table's order."""
    text = files("coterie.language.pairs").joinpath(f"{table}.txt").read_text(encoding="utf-8")
    return dict(line.split() for line in text.splitlines())


def reversed_pairs(pairs: dict[str, str]) -> dict[str, str]:
    """Return the first other form of each usual one."""
    return {usual: other for other, usual in reversed(pairs.items())}
