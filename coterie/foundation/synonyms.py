"""The words that people know from other tools, and what they are called here.

Each word of `synonyms.txt` stands for the keys of a run that it may mean, most likely first. Words
are compared without case, hyphens, underscores, dots and blanks.
"""

import re
from collections.abc import Iterable
from pathlib import Path


def squash(word: str) -> str:
    """Return a word as words are compared: without case, hyphens, underscores, dots and blanks."""
    return re.sub(r"[-_.\s]", "", word).lower()


def _read(table: Path) -> dict[str, tuple[str, ...]]:
    turned: dict[str, tuple[str, ...]] = {}
    for line in table.read_text(encoding="utf-8").splitlines():
        name, _, words = line.partition(": ")
        for word in () if line.startswith("#") else words.split():
            turned[squash(word)] = (*turned.get(squash(word), ()), name)
    return turned


SYNONYMS = _read(Path(__file__).with_name("synonyms.txt"))


def meant_by(word: str, choices: Iterable[str]) -> list[str]:
    """Return the choices that a word certainly means: spelt otherwise, or known by another name.

    Args:
        choices: names or dotted keys.
    """
    known, wanted = list(choices), squash(word)
    if not wanted:
        return []
    same = [name for name in known if squash(name) == wanted]
    last = [name for name in known if squash(name.rpartition(".")[2]) == wanted]
    if same or last:
        return list(dict.fromkeys([*same, *last]))
    keys = SYNONYMS.get(wanted, ())
    whole = [key for key in keys if key in known]
    ends = [key.rpartition(".")[2] for key in keys]
    return list(dict.fromkeys([*whole, *(end for end in ends if end in known)]))
