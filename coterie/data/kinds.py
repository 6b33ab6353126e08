"""What a file's name says about its content: one rule, wherever files are read or compared.

Endings are read without regard to case. Endings of compression are peeled off first (`a.csv.gz.xz`
is CSV, packed twice); of what remains the last ending alone decides (`c.tsv.clean.csv` is CSV).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

Content = Literal["text", "jsonl", "separated", "parquet", "arrow"]
Packing = Literal["gzip", "xz", "bzip2", "zstandard"]

_PACKINGS: dict[str, Packing] = {
    ".gz": "gzip",
    ".xz": "xz",
    ".bz2": "bzip2",
    ".zst": "zstandard",
}
_CONTENTS: dict[str, Content] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "separated",
    ".tsv": "separated",
    ".parquet": "parquet",
    ".arrow": "arrow",
}


@dataclass(frozen=True)
class FileKind:
    """What a file holds.

    Attributes:
        content: how its text is found.
        ending: the ending that said so, in lower case; empty for text.
        packings: how it is compressed, the outermost first.
    """

    content: Content
    ending: str
    packings: tuple[Packing, ...]


_TEXT = FileKind("text", "", ())


def kind_of(path: PurePath | str) -> FileKind:
    """Return what a file's name says about its content."""
    name, ending = _cut_ending(PurePath(path).name if isinstance(path, str) else path.name)
    if ending not in _PACKINGS and ending not in _CONTENTS:
        return _TEXT
    packings: list[Packing] = []
    while ending in _PACKINGS:
        packings.append(_PACKINGS[ending])
        name, ending = _cut_ending(name)
    content = _CONTENTS.get(ending, "text")
    return FileKind(content, ending if content != "text" else "", tuple(packings))


def _cut_ending(name: str) -> tuple[str, str]:
    """Return a name without its last ending, and that in lower case; a first dot begins none."""
    stem, dot, ending = name.rpartition(".")
    return (stem, f".{ending.lower()}") if dot and stem else (name, "")
