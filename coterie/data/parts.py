"""A preparation in parts, by whatever runs them: each reads its share of the files, one joins them.

A part is a folder with a store of its own, all of whose documents train, and the survey of them. So
parts need to know nothing of one another: what is held out is decided when all are there, by the
hashes in the surveys. The joined store is the one that a single preparation writes.

```
PART/part.json         which part of how many, and the checksum of the survey
PART/documents.bin     the survey, see `split.SURVEYED`
PART/store/            the store; none where no file fell to the part
```
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from coterie.data.documents import Document
from coterie.data.encode import Encoded, encode_pieces
from coterie.data.manifest import Manifest, SplitRecord, write_manifest
from coterie.data.mirror import url_of
from coterie.data.prepare import SHARD_TOKENS, choice_of, record_of, write_store
from coterie.data.remote import fetched
from coterie.data.sources import Sources
from coterie.data.split import (
    SPLITS,
    SURVEYED,
    OnProgress,
    Piece,
    Split,
    SplitKind,
    SplitRule,
    split_rule,
    surveyed,
)
from coterie.data.store import Store, open_plain_store
from coterie.data.writer import SplitWriter, dtype_for
from coterie.foundation.errors import DataError
from coterie.foundation.files import atomic_directory, sha256_file, write_json_atomic
from coterie.foundation.records import read_model
from coterie.foundation.settings import Settings
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.saving import FILE_NAME as TOKENIZER_FILE
from coterie.tokenizer.saving import save_tokenizer

_STRETCH = 1 << 22  # tokens copied together


class PartRecord(Settings):
    """What a part says about itself."""

    part: int = Field(ge=1)
    parts: int = Field(ge=1)
    seed: int
    tokenizer: str
    sha256: str | None = None
    origins: tuple[str, ...] = ()
    skipped: int = 0
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def parse_part(text: str) -> tuple[int, int]:
    """Return which part of how many `2/8` means, counted from one.

    Raises:
        DataError: it is no part.
    """
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise DataError(f"“{text}” is no part: the second of eight is 2/8.")
    return int(found[1]), int(found[2])


def prepare_part(
    sources: Sources,
    out: Path | str,
    tokenizer: Tokenizer,
    part: tuple[int, int],
    *,
    seed: int = 0,
    progress: OnProgress | None = None,
    processes: int | None = None,
    replace: bool = False,
    resume: bool = False,
) -> Path:
    """Write one part of a preparation and return its folder; see `prepare`.

    Raises:
        UserError: as for `prepare`.
    """
    mine = sources.part(*part)
    with atomic_directory(out, replace=replace, resume=resume) as folder:
        record: dict[str, Any] = {}
        if not mine.empty:
            keys = folder / "documents.bin"
            store = write_store(
                mine, folder / "store", tokenizer, valid_fraction=0, split="documents", seed=seed,
                progress=progress, by=(None, processes), replace=True, resume=resume, keys=keys,
            )  # fmt: skip
            manifest = store.manifest
            record = {"skipped": manifest.skipped, "problems": manifest.problems,
                      "notes": manifest.notes, "sha256": sha256_file(keys),
                      "origins": manifest.sources or mine.origins}  # fmt: skip
        said = PartRecord(part=part[0], parts=part[1], seed=seed,
                          tokenizer=tokenizer.fingerprint, **record)  # fmt: skip
        save_tokenizer(tokenizer, folder / TOKENIZER_FILE)
        write_json_atomic(folder / "part.json", said.model_dump(mode="json"))
    return Path(out)


@dataclass(frozen=True)
class _Part:
    """One part that was read: its record and, unless it is empty, its store and survey."""

    folder: Path
    record: PartRecord
    store: Store | None
    found: np.ndarray


def join_parts(
    parts: Sequence[Path | str],
    out: Path | str,
    *,
    valid_fraction: float = 0.1,
    split: SplitKind = "documents",
    shard_tokens: int = SHARD_TOKENS,
    progress: OnProgress | None = None,
    replace: bool = False,
) -> Store:
    """Write the store of all parts of a preparation.

    Raises:
        DataError: a part is missing, damaged, or of another preparation.
        UserError: `out` exists, or cannot be written.
    """
    with atomic_directory(out, replace=replace) as folder:
        found = _read(parts)
        tokenizer = next(each.store.tokenizer for each in found if each.store)
        keys = folder / "keys.partial"
        with open(keys, "wb") as file:
            for each in found:
                file.write(each.found.tobytes())
        origins = tuple(dict.fromkeys(name for each in found for name in each.record.origins))
        survey = surveyed(keys, found[0].record.seed, origins)
        rule = split_rule(survey, split, valid_fraction)
        writers: dict[Split, SplitWriter] = {
            name: SplitWriter(folder, name, tokenizer, shard_tokens, origins) for name in SPLITS
        }
        with contextlib.ExitStack() as stack:
            for writer in writers.values():
                stack.callback(writer.close)
            done = 0
            for piece in _pieces(found, rule, tokenizer):
                writers[piece.split].add(piece)
                done += piece.characters
                if progress is not None:
                    progress("joining", done, survey.characters)
            splits: dict[Split, SplitRecord] = {name: w.finish() for name, w in writers.items()}
        keys.unlink()
        save_tokenizer(tokenizer, folder / TOKENIZER_FILE)
        manifest = Manifest(
            dtype=dtype_for(tokenizer),
            shard_tokens=shard_tokens,
            tokenizer=record_of(tokenizer),
            split=choice_of(split, rule, valid_fraction, survey.seed),
            splits=splits,
            sources=origins if len(origins) > 1 else (),
            skipped=sum(each.record.skipped for each in found),
            problems=tuple(line for each in found for line in each.record.problems),
            notes=tuple(line for each in found for line in each.record.notes),
            clean=next(each.store.manifest.clean for each in found if each.store),
        )
        write_manifest(folder, manifest)
    return Store(Path(out), manifest, tokenizer)


def _read(folders: Sequence[Path | str]) -> list[_Part]:
    """Return all parts in order, checked.

    Raises:
        DataError: one is missing, doubled, damaged, or of another preparation.
    """
    found = sorted(map(_open, map(Path, folders)), key=lambda each: each.record.part)
    if not found:
        raise DataError("No part was named.", hint="coterie data join PART... --out STORE")
    first = found[0].record
    for each in found:
        for what in ("parts", "seed", "tokenizer"):
            if getattr(each.record, what) != getattr(first, what):
                raise DataError(f"{each.folder} and {found[0].folder} differ in their {what}.")
    numbers = [each.record.part for each in found]
    wanted = range(1, first.parts + 1)
    if twice := [number for number in wanted if numbers.count(number) > 1]:
        raise DataError(f"Part {twice[0]} of {first.parts} was named twice.")
    if missing := sorted({*wanted} - {*numbers}):
        raise DataError(f"Part {missing[0]} of {first.parts} is missing.")
    if not any(each.store for each in found):
        raise DataError("The parts hold no text.")
    return found


def _file(folder: Path, name: str) -> Path:
    """Return a file of a part, or a copy of it if that lies elsewhere."""
    url = url_of(folder)
    return folder / name if url is None else fetched(f"{url}/{name}")


def _open(folder: Path) -> _Part:
    try:
        record = read_model(PartRecord, _file(folder, "part.json"), DataError)
    except FileNotFoundError as error:
        raise DataError(
            f"There is no part of a preparation at {folder}.",
            hint="Make one: coterie data prepare INPUT... --part 1/8 --out PART",
        ) from error
    if record.sha256 is None:
        return _Part(folder, record, None, np.empty(0, dtype=SURVEYED))
    file = _file(folder, "documents.bin")
    if not file.is_file() or sha256_file(file) != record.sha256:
        raise DataError(f"{folder} is damaged: {file.name} does not have its checksum.",
                        hint="Prepare this part again.")  # fmt: skip
    store = open_plain_store(folder / "store")
    store.check_content()
    survey = np.fromfile(file, dtype=SURVEYED)
    if store.manifest.tokenizer.fingerprint != record.tokenizer or (
        np.count_nonzero(survey["characters"]) != store.manifest.splits["train"].documents
    ):
        raise DataError(f"{folder} is damaged: its store is not the one of its survey.")
    return _Part(folder, record, store, survey[survey["characters"] > 0])


def _pieces(found: Sequence[_Part], rule: SplitRule, tokenizer: Tokenizer) -> Iterator[Encoded]:
    """Yield the documents of all parts, long ones in stretches, in the split they belong to."""
    position = 0
    for part in found:
        if part.store is None:
            continue
        tokens, starts = part.store.tokens("train"), part.store.document_starts("train")
        ids, names = part.store.document_sources("train"), part.record.origins
        ends = np.append(starts[1:].astype(np.int64) - 1, len(tokens))
        for number, known in enumerate(part.found):
            begin, end = int(starts[number]), int(ends[number])
            characters = int(known["characters"])
            whole = Encoded(
                "train", True, tokens[begin:begin], characters, int(known["bytes"]), 0,
                origin=names[int(ids[number])],
            )  # fmt: skip
            split: Split = "train" if position + characters <= rule.cut else "valid"
            if rule.kind == "documents":
                split = "valid" if int(known["key"]) < rule.threshold else "train"
            elif position < rule.cut < position + characters:
                name = f"document {number + 1:,} of {part.folder}"
                yield from _divided(tokens[begin:end], rule.cut - position, tokenizer, name, whole)
                position += characters
                continue
            position += characters
            for at in range(begin, end, _STRETCH):
                stretch = tokens[at : min(at + _STRETCH, end)]
                unknown = np.count_nonzero(stretch == tokenizer.unknown_token)
                first = at == begin
                yield Encoded(
                    split, first, stretch, characters * first, whole.bytes * first,
                    int(unknown) if tokenizer.unknown_token is not None else 0,
                    origin=whole.origin,
                )  # fmt: skip


def _divided(
    tokens: np.ndarray, cut: int, tokenizer: Tokenizer, name: str, whole: Encoded
) -> Iterator[Encoded]:
    """Yield a document of which the end is held out, encoded anew on both sides.

    Raises:
        DataError: its text is not to be had from its tokens.
    """
    text = tokenizer.decode(tokens) if tokenizer.keeps_text else ""
    if len(text) != whole.characters or len(text.encode("utf-8", "surrogatepass")) != whole.bytes:
        raise DataError(
            f"The tail begins inside {name}, and its tokenizer does not return its text.",
            hint="Hold out whole documents: --split documents.",
        )
    document = Document(name, text, origin=whole.origin)
    rest = dataclasses.replace(document.cut(cut), continued=False)
    pieces = [Piece("train", document.cut(0, cut)), Piece("valid", rest)]
    yield from encode_pieces(pieces, tokenizer, workers=1)
