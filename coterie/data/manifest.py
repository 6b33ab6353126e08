"""What a token store says about itself, checked when it is read.

The manifest names every file with its size and SHA-256, and ends with the SHA-256 of itself, so
that no byte of a store can change without being found. A checksum can be made anew, so
`contradictions` also holds what the manifest says against itself.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field

from coterie.data.mix import Mix
from coterie.data.split import SPLITS, Split, tail_cut
from coterie.foundation.errors import StoreError
from coterie.foundation.files import write_json_atomic
from coterie.foundation.printable import printable
from coterie.foundation.records import read_json, validated
from coterie.foundation.settings import Settings

R = TypeVar("R", bound=Settings)

FILE_NAME = "manifest.json"
FORMAT, MERGED_FORMAT = "coterie.store/1", "coterie.merged/1"
MOST_SOURCES = 1 << 12
_OF_SOURCES: dict[str, Any] = {
    "sources": True,
    "splits": {"__all__": {"sources": True, "source_ids": True}},
}

Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Positive = Annotated[int, Field(ge=1, lt=1 << 63)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Record(Settings):
    """A part of a manifest: no value is converted from another type."""

    model_config = ConfigDict(strict=True)


class FileRecord(Record):
    """One binary file: its name, how many numbers it holds, its SHA-256."""

    file: str = Field(pattern="^(train|valid)-([0-9]{5,12}|documents|sources)[.]bin$")
    count: Positive
    sha256: Sha256


class SourceRecord(Record):
    """What a split holds of one source; each separator counts with the document before it."""

    documents: Count
    tokens: Count


class SplitRecord(Record):
    """One split: `tokens` in `shards`, and where its documents begin in `offsets`.

    Where the store has several sources, `source_ids` holds the number of each document's.
    """

    tokens: Count
    documents: Count
    characters: Count = Field(description="of the text, separators left aside")
    bytes: Count = Field(description="of the text in UTF-8, separators left aside")
    unknown: Count = Field(description="tokens that stand for what the vocabulary cannot say")
    # JSON has lists alone: strictness would ask for a tuple.
    shards: tuple[FileRecord, ...] = Field(strict=False)
    offsets: FileRecord | None
    source_ids: FileRecord | None = None
    sources: tuple[SourceRecord, ...] = Field(default=(), strict=False)

    @property
    def files(self) -> tuple[FileRecord, ...]:
        """Every file of the split."""
        return (*self.shards, *filter(None, (self.offsets, self.source_ids)))


class SplitChoice(Record):
    """How the text was divided: what was asked for, and what was done."""

    asked: Literal["documents", "tail"]
    used: Literal["documents", "tail"]
    valid_fraction: float = Field(ge=0, lt=1)
    seed: int
    note: str = ""


class TokenizerRecord(Record):
    """Which tokenizer made the tokens; the file beside the manifest holds it completely."""

    kind: str
    fingerprint: Sha256
    vocab_size: int = Field(ge=1, le=1 << 32)
    end_of_text: Count


class Manifest(Record):
    """The description of a store."""

    format: Literal["coterie.store/1"] = FORMAT
    dtype: Literal["uint16", "uint32"]
    shard_tokens: Positive = Field(description="tokens in every shard but a split's last")
    tokenizer: TokenizerRecord
    split: SplitChoice
    splits: dict[Split, SplitRecord] = Field(min_length=len(SPLITS))
    skipped: Count = Field(default=0, description="rows and files left out of the input")
    problems: tuple[str, ...] = Field(
        default=(), strict=False, description="what they were, and why"
    )
    notes: tuple[str, ...] = Field(
        default=(), strict=False, description="choices made without being asked for"
    )

    clean: tuple[dict[str, Any], ...] = Field(
        default=(), strict=False, description="how documents were cleaned before"
    )

    sources: tuple[str, ...] = Field(
        default=(), strict=False, description="the inputs, where there were several"
    )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides the tokens: equal data, equal fingerprint."""
        unhashed = dict.fromkeys(("skipped", "problems", "notes", "split", "clean"), True)
        return digest(self.model_dump(mode="json", exclude=unhashed | _OF_SOURCES))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, which makes a folder a store, with the checksum of itself."""
    # A store as it was before there was cleaning, or sources.
    unnamed: dict[str, Any] = {} if manifest.clean else {"clean": True}
    unnamed |= {} if manifest.sources else _OF_SOURCES
    content = manifest.model_dump(mode="json", exclude=unnamed)
    write_signed(folder, content)


def write_signed(folder: Path, content: dict[str, Any]) -> None:
    """Write a manifest's content with the checksum of itself."""
    write_json_atomic(folder / FILE_NAME, content | {"sha256": digest(content)})


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a store and check its types and ranges.

    Raises:
        StoreError: there is none, or it is damaged.
    """
    return read_record(folder, Manifest, FORMAT)


class PartRecord(Record):
    """One of the stores of a merged one."""

    name: str = Field(min_length=1)
    path: str = Field(min_length=1, description="relative to the merged store's folder")
    fingerprint: Sha256
    tokens: dict[Split, Count] = Field(min_length=len(SPLITS))


class MergedManifest(Record):
    """The description of a merged store."""

    format: Literal["coterie.merged/1"] = MERGED_FORMAT
    tokenizer: TokenizerRecord
    mix: Mix
    parts: tuple[PartRecord, ...] = Field(strict=False, min_length=2)


def is_merged(folder: Path | str) -> bool:
    """Whether a folder says that it is a merged store."""
    try:
        content = read_json(Path(folder) / FILE_NAME, StoreError)
    except (OSError, StoreError, ValueError):  # ValueError: a NUL in the name
        return False
    return isinstance(content, dict) and content.get("format") == MERGED_FORMAT


def read_record(folder: Path, kind: type[R], form: str) -> R:
    """Read a signed manifest of some form.

    Raises:
        StoreError: there is none, or it is damaged.
    """
    if os.path.exists(folder) and not os.path.isdir(folder):  # a user may name any path
        raise StoreError(
            f"{folder} is a file, not a token store.",
            hint=f"Make a store of it: coterie data prepare {folder} --out STORE",
        )
    try:
        content = read_json(folder / FILE_NAME, StoreError)
    except FileNotFoundError as error:
        raise StoreError(
            f"There is no token store at {folder}.",
            hint=f"Make one: coterie data prepare INPUT --out {folder}",
        ) from error
    except StoreError as error:
        raise damaged(folder, error.message) from error
    if not isinstance(content, dict) or not isinstance(content.get("format"), str):
        raise StoreError(
            f"{folder} is not a token store: its {FILE_NAME} is something else's.",
            hint=f"Make one: coterie data prepare INPUT --out {folder}-store",
        )
    if content["format"] != form and content["format"] == MERGED_FORMAT:
        raise StoreError(f"{folder} is itself a merged store.", hint="Name the stores in it.")
    if content["format"] != form:
        raise StoreError(
            f"The store {folder} has the format “{printable(content['format'][:40], keep='')}”, "
            "which this version of Coterie does not read.",
            hint="Prepare it again, or update Coterie.",
        )
    checksum = content.pop("sha256", None)
    if checksum != digest(content):
        raise damaged(folder, f"its {FILE_NAME} does not have its own checksum")
    try:
        return validated(kind, content, f"Its {FILE_NAME}", StoreError)
    except StoreError as error:
        raise damaged(folder, error.message) from error


def contradictions(manifest: Manifest) -> list[str]:
    """Return where a manifest contradicts itself; nothing but it is looked at."""
    problems = []
    tokenizer = manifest.tokenizer
    if tokenizer.end_of_text >= tokenizer.vocab_size:
        problems.append(
            f"the separator {tokenizer.end_of_text:,} lies outside the vocabulary of "
            f"{tokenizer.vocab_size:,}"
        )
    width = "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"
    if manifest.dtype != width:
        problems.append(f"{tokenizer.vocab_size:,} tokens are written as {width}, not "
                        f"{manifest.dtype}")  # fmt: skip
    for name, record in manifest.splits.items():
        problems += [*_source_contradictions(name, record, len(manifest.sources))]
        problems += [*_file_contradictions(name, record, manifest.shard_tokens)]
        problems += [f"{name}: {problem}" for problem in _count_contradictions(record)]
    problems += _split_contradictions(manifest)
    if manifest.problems and not manifest.skipped:
        problems.append("reasons are given for leaving out nothing")
    return problems


def _file_contradictions(name: str, record: SplitRecord, shard_tokens: int) -> Iterator[str]:
    for number, shard in enumerate(record.shards):
        if shard.file != f"{name}-{number:05d}.bin":
            yield f"shard {number} of {name} is called {shard.file}, not {name}-{number:05d}.bin"
        last = number + 1 == len(record.shards)
        if shard.count > shard_tokens or (shard.count < shard_tokens and not last):
            yield f"{shard.file} holds {shard.count:,} tokens instead of {shard_tokens:,}"
    if record.offsets and record.offsets.file != f"{name}-documents.bin":
        yield f"the offsets of {name} are called {record.offsets.file}, not {name}-documents.bin"
    total = sum(shard.count for shard in record.shards)
    if total != record.tokens:
        yield f"the shards of {name} hold {total:,} tokens instead of {record.tokens:,}"
    count = record.offsets.count if record.offsets else 0
    if count != record.documents:
        yield f"{name} has {count:,} document offsets instead of {record.documents:,}"


def _source_contradictions(name: str, record: SplitRecord, sources: int) -> Iterator[str]:
    ids = record.source_ids
    if ids and ids.file != f"{name}-sources.bin":
        yield f"the sources of {name} are called {ids.file}, not {name}-sources.bin"
    wanted = record.documents if sources else 0
    if (ids.count if ids else 0) != wanted:
        yield f"{name} says the source of {ids.count if ids else 0:,} documents, not of {wanted:,}"
    if len(record.sources) != sources:
        yield f"{name} counts {len(record.sources)} sources instead of {sources}"
    elif sources:
        for what in ("documents", "tokens"):
            total = sum(getattr(each, what) for each in record.sources)
            if total != getattr(record, what):
                yield (
                    f"the sources of {name} hold {total:,} {what} instead of "
                    f"{getattr(record, what):,}"
                )


def _count_contradictions(record: SplitRecord) -> Iterator[str]:
    separators = max(record.documents - 1, 0)
    text = record.tokens - separators  # a document is one token at least
    if text < record.documents or (text > 0) != (record.documents > 0):
        yield f"{record.documents:,} documents in {record.tokens:,} tokens"
    if record.unknown > max(text, 0):
        yield f"{record.unknown:,} unknown tokens among {max(text, 0):,}"
    if record.characters < record.documents:
        yield f"{record.characters:,} characters in {record.documents:,} documents"
    if not record.characters <= record.bytes <= 4 * record.characters:
        yield f"{record.characters:,} characters in {record.bytes:,} bytes of UTF-8"


def _split_contradictions(manifest: Manifest) -> Iterator[str]:
    choice = manifest.split
    train, valid = (manifest.splits[name].characters for name in SPLITS)
    if choice.used == "documents":
        if choice.asked != "documents" or not (choice.valid_fraction and train and valid):
            yield "whole documents were held out, which does not fit the rest of “split”"
        return
    wanted = tail_cut(train + valid, choice.valid_fraction)
    if train != wanted:
        yield (
            f"train has {train:,} characters; with valid_fraction {choice.valid_fraction} of "
            f"{train + valid:,} it is {wanted:,}"
        )
    if choice.asked == "documents" and choice.valid_fraction and not choice.note:
        yield "the tail is held out instead of documents without a reason"


def digest(content: dict[str, Any]) -> str:
    """Return the SHA-256 of a manifest's content, its own checksum left aside."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def damaged(folder: Path, why: str) -> StoreError:
    """Return the error for a damaged store, which says how to learn more."""
    return StoreError(
        f"The store {folder} is damaged: {why.removesuffix('.')}.",
        hint=f"coterie data verify {folder} lists every problem; then prepare it again.",
    )
