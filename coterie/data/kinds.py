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


def kind_of(path: PurePath | str) -> FileKind:
    """Return what a file's name says about its content."""
    path = PurePath(path)
    packings: list[Packing] = []
    while (ending := path.suffix.lower()) in _PACKINGS:
        packings.append(_PACKINGS[ending])
        path = path.with_suffix("")
    content = _CONTENTS.get(ending, "text")
    return FileKind(content, ending if content != "text" else "", tuple(packings))
