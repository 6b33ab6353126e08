"""The corpus inside the package: Shakespeare's plays and poems as tagged text, verified on load.

`shipped/shakespeare.txt.xz` holds all documents one after another; `shipped/shakespeare.json` says
where each begins and what its checksum is. `scripts/build_corpus.py` makes both from the sources.
"""

from __future__ import annotations

import lzma
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from coterie.data.documents import Document
from coterie.foundation.errors import DataError
from coterie.foundation.files import sha256_bytes
from coterie.foundation.records import read_model

SHIPPED = Path(__file__).parent / "shipped"
TEXTS = "shakespeare.txt.xz"
MANIFEST = "shakespeare.json"

_REPAIR = "Install the package again, or rebuild the files: python scripts/build_corpus.py"


class _Entry(BaseModel):
    model_config = ConfigDict(strict=True)

    name: str
    characters: int = Field(ge=1)
    sha256: str


class _Manifest(BaseModel):
    model_config = ConfigDict(strict=True)

    format: Literal[1]
    documents: list[_Entry]


def shakespeare(folder: Path | str = SHIPPED) -> list[Document]:
    """Return the 38 plays, the sonnets and four poems in the tags of `language.drama.tags`.

    Args:
        folder: where the two files are; by default inside the package.

    Raises:
        DataError: a file is missing or damaged, with the document that it hits.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder / MANIFEST)
    texts = _read_texts(folder / TEXTS)
    documents = []
    start = 0
    for entry in manifest.documents:
        text = texts[start : start + entry.characters]
        start += entry.characters
        if sha256_bytes(text.encode("utf-8")) != entry.sha256:
            raise DataError(
                f"The shipped corpus is damaged: {entry.name} in {folder / TEXTS} does not have"
                f" the checksum of {MANIFEST}.",
                hint=_REPAIR,
            )
        documents.append(Document(entry.name, text, source="shakespeare", language="en"))
    if start != len(texts):
        raise DataError(
            f"The shipped corpus is damaged: {folder / TEXTS} holds {len(texts):,} characters,"
            f" {MANIFEST} says {start:,}.",
            hint=_REPAIR,
        )
    return documents


def _read_manifest(path: Path) -> _Manifest:
    try:
        return read_model(_Manifest, path, DataError)
    except (FileNotFoundError, DataError) as error:
        raise DataError(
            f"The shipped corpus cannot be read: {getattr(error, 'message', error)}", hint=_REPAIR
        ) from None


def _read_texts(path: Path) -> str:
    try:
        return lzma.decompress(path.read_bytes()).decode("utf-8")
    except (OSError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise DataError(f"The shipped corpus is damaged: {path}: {error}", hint=_REPAIR) from None
