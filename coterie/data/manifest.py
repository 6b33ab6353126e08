"""What a token store says about itself, checked when it is read.

The manifest names every file with its size and SHA-256, and ends with the SHA-256 of itself, so
that no byte of a store can change without being found.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from coterie.foundation.errors import StoreError
from coterie.foundation.files import write_json_atomic
from coterie.foundation.settings import Settings

FILE_NAME = "manifest.json"


class FileRecord(Settings):
    """One binary file: its name, how many numbers it holds, its SHA-256."""

    file: str
    count: int = Field(ge=1)
    sha256: str


class SplitRecord(Settings):
    """One split: `tokens` in `shards`, and where its documents begin in `offsets`."""

    tokens: int = Field(ge=0)
    documents: int = Field(ge=0)
    characters: int = Field(ge=0, description="of the text, separators left aside")
    bytes: int = Field(ge=0, description="of the text in UTF-8, separators left aside")
    unknown: int = Field(ge=0, description="tokens that stand for what the vocabulary cannot say")
    shards: tuple[FileRecord, ...]
    offsets: FileRecord | None


class SplitChoice(Settings):
    """How the text was divided: what was asked for, and what was done."""

    asked: Literal["documents", "tail"]
    used: Literal["documents", "tail"]
    valid_fraction: float
    seed: int
    note: str = ""


class TokenizerRecord(Settings):
    """Which tokenizer made the tokens; the file beside the manifest holds it completely."""

    kind: str
    fingerprint: str
    vocab_size: int = Field(ge=1)
    end_of_text: int = Field(ge=0)


class Manifest(Settings):
    """The description of a store."""

    format: Literal["coterie.store/1"] = "coterie.store/1"
    dtype: Literal["uint16", "uint32"]
    shard_tokens: int = Field(ge=1, description="tokens in every shard but a split's last")
    tokenizer: TokenizerRecord
    split: SplitChoice
    splits: dict[str, SplitRecord]
    skipped: int = Field(default=0, ge=0, description="rows and files left out of the input")
    problems: tuple[str, ...] = Field(default=(), description="why, for the first of them")

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides the tokens: equal data, equal fingerprint."""
        content = self.model_dump(mode="json", exclude={"skipped", "problems", "split"})
        return _digest(content)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, which makes a folder a store, with the checksum of itself."""
    content = manifest.model_dump(mode="json")
    write_json_atomic(folder / FILE_NAME, content | {"sha256": _digest(content)})


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a store.

    Raises:
        StoreError: there is none, or it is damaged.
    """
    path = folder / FILE_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StoreError(
            f"There is no token store at {folder}.",
            hint=f"Make one: coterie data prepare INPUT --out {folder}",
        ) from error
    except NotADirectoryError as error:
        raise StoreError(
            f"{folder} is a file, not a token store.",
            hint=f"Make a store of it: coterie data prepare {folder} --out STORE",
        ) from error
    except (OSError, ValueError) as error:
        raise _damaged(folder, f"its {FILE_NAME} cannot be read: {error}") from error
    if not isinstance(content, dict) or "format" not in content:
        raise StoreError(f"{folder} is not a token store: its {FILE_NAME} is something else's.")
    if content["format"] != "coterie.store/1":
        raise StoreError(
            f"The store {folder} has the format {content['format']!r}, which this version of "
            "Coterie does not read.",
            hint="Prepare it again, or update Coterie.",
        )
    checksum = content.pop("sha256", None)
    if checksum != _digest(content):
        raise _damaged(folder, f"its {FILE_NAME} does not have its own checksum")
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise _damaged(folder, f"its {FILE_NAME} is wrong at {place}: {first['msg']}") from error


def _digest(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def _damaged(folder: Path, why: str) -> StoreError:
    return StoreError(
        f"The store {folder} is damaged: {why}.",
        hint=f"coterie data verify {folder} lists every problem; then prepare it again.",
    )
