"""Checks every byte of a token store and everything the manifest claims about it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from coterie.data.manifest import (
    FILE_NAME,
    FileRecord,
    Manifest,
    SplitRecord,
    contradictions,
    read_manifest,
)
from coterie.data.recount import read_numbers, recount_problems
from coterie.data.split import OnProgress
from coterie.data.store import (
    OFFSETS_DTYPE,
    SOURCES_DTYPE,
    file_problem,
    file_problems,
    kind_of_file,
    offset_problem,
    tokenizer_problems,
)
from coterie.data.writer import counted_sources
from coterie.foundation.errors import CoterieError, StoreError, UserError
from coterie.foundation.printable import printable
from coterie.foundation.records import read_json
from coterie.foundation.swap import restore
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.saving import FILE_NAME as TOKENIZER_FILE
from coterie.tokenizer.saving import load_tokenizer

_OF_A_STORE = re.compile("(train|valid)-([0-9]{5,12}|documents|sources)[.]bin")


def verify_store(
    path: Path | str, *, texts: bool = True, progress: OnProgress | None = None
) -> list[str]:
    """Return every problem of a store; none means that it is sound.

    Checksums are compared, and all that they could be made anew for is computed again: sizes,
    counts, document offsets, tokens against the tokenizer, the text, the split. Nothing outside the
    folder is read, and nothing but regular files.

    Args:
        path: the folder.
        texts: whether to decode the tokens and encode their text again, which takes about as long
            as preparing the store did.
        progress: called with the stage, characters done, and characters in all.
    """
    path = Path(path)
    try:
        restore(path)
        manifest = read_manifest(path)
    except UserError as error:
        return [error.message, *_strangers(path, None)]
    tokenizer, problems = _load_tokenizer(path, manifest)
    problems += contradictions(manifest)
    problems += file_problems(path, manifest)
    problems += _strangers(path, manifest)
    found = [
        problem
        for name, record in manifest.splits.items()
        for problem in _number_problems(path, name, record, manifest, tokenizer)
    ]
    if texts and tokenizer is not None and not found:
        try:
            found = recount_problems(path, manifest, tokenizer, progress)
        except (OSError, CoterieError) as error:  # it changed while it was read
            found = [f"the tokens cannot be read: {error}"]
    return list(dict.fromkeys([*problems, *found]))


def _load_tokenizer(path: Path, manifest: Manifest) -> tuple[Tokenizer | None, list[str]]:
    """Return the tokenizer, unless it is not the manifest's, and what is wrong with it."""
    if file_problem(path / TOKENIZER_FILE):
        return None, []  # reported with the other files
    try:
        content = read_json(path / TOKENIZER_FILE, StoreError)
        tokenizer = load_tokenizer(path)
    except (OSError, CoterieError) as error:
        return None, [error.message if isinstance(error, CoterieError) else str(error)]
    problems = tokenizer_problems(tokenizer, manifest)
    if not problems and content | {"format": ""} != tokenizer.to_json() | {"format": ""}:
        problems = [f"{TOKENIZER_FILE} holds more or other things than its tokenizer"]
    return (None if problems else tokenizer), problems


def _strangers(path: Path, manifest: Manifest | None) -> list[str]:
    """Return what lies in the folder without belonging to the store, whatever it is."""
    try:
        with os.scandir(path) as entries:
            found = {entry.name: entry.stat(follow_symlinks=False).st_mode for entry in entries}
    except OSError as error:
        return [f"the folder cannot be listed: {error.strerror}"] if manifest else []
    except ValueError:  # a NUL in the name
        return []
    if manifest is None:
        known = {name for name in found if _OF_A_STORE.fullmatch(name)}
        if not known:
            return []  # some other folder
    else:
        known = {part.file for record in manifest.splits.values() for part in record.files}
    strangers = sorted(found.keys() - known - {FILE_NAME, TOKENIZER_FILE})
    return [
        f"{printable(name, keep='')} ({kind_of_file(found[name])}) does not belong to the store"
        for name in strangers
    ]


def _number_problems(
    path: Path,
    name: str,
    record: SplitRecord,
    manifest: Manifest,
    tokenizer: Tokenizer | None,
) -> Iterator[str]:
    """Yield what is wrong with the numbers of a split, each file being read once."""
    offsets: list[np.ndarray] = []
    if record.offsets is not None:
        yield from _read(path, record.offsets, np.dtype(OFFSETS_DTYPE), offsets.append)
    starts = np.concatenate(offsets) if offsets else np.empty(0, dtype=OFFSETS_DTYPE)
    wrong = offset_problem(starts, record)
    if wrong:
        yield f"{name}-documents.bin: {wrong}"
    if record.source_ids is not None:
        ids: list[np.ndarray] = []
        yield from _read(path, record.source_ids, np.dtype(SOURCES_DTYPE), ids.append)
        yield from _source_problems(name, record, starts, np.concatenate(ids or [starts[:0]]))
    check = _TokenCheck(name, manifest, starts[:0] if wrong else starts, tokenizer)
    for shard in record.shards:
        dtype = np.dtype(manifest.dtype).newbyteorder("<")
        yield from _read(path, shard, dtype, check.add)
        check.end_of(shard)
    yield from check.problems(record)


def _source_problems(
    name: str, record: SplitRecord, starts: np.ndarray, ids: np.ndarray
) -> Iterator[str]:
    """Yield where the sources of documents are not those that the manifest counts."""
    if len(ids) != len(starts) or not len(ids):
        return  # reported with the files
    if int(ids.max()) >= len(record.sources):
        yield f"{name} names source {int(ids.max()):,} of {len(record.sources):,}"
    elif counted_sources(starts, ids, record.tokens, len(record.sources)) != record.sources:
        yield f"the documents of {name} are not of the sources that its {FILE_NAME} counts"


def _read(path: Path, part: FileRecord, dtype: np.dtype, take) -> Iterator[str]:
    """Hand the numbers of a file over in stretches; yield what is wrong with it as a whole."""
    problem = file_problem(path / part.file, part.count * dtype.itemsize)
    if problem:  # also: a file far too large is not read
        yield problem
        return
    digest = hashlib.sha256()
    try:
        for numbers in read_numbers(path / part.file, dtype, digest):
            take(numbers)
    except OSError as error:
        yield f"{part.file} cannot be read: {error.strerror}"
        return
    if digest.hexdigest() != part.sha256:
        yield f"{part.file} does not have its checksum: its content changed"


class _TokenCheck:
    """Looks at a split's tokens as they come: in the vocabulary, separated, how many unknown."""

    def __init__(
        self, name: str, manifest: Manifest, starts: np.ndarray, tokenizer: Tokenizer | None
    ) -> None:
        self._name = name
        self._limit = manifest.tokenizer.vocab_size
        self._separator = manifest.tokenizer.end_of_text
        self._ends = np.asarray(starts[1:]).astype(np.int64) - 1
        self._unknown_token = tokenizer.unknown_token if tokenizer else None
        self._unknown: int | None = 0 if tokenizer else None
        self._position = self._shards = 0
        self._complete = True
        self._problems: dict[str, str] = {}

    def add(self, tokens: np.ndarray) -> None:
        """Look at the next tokens [N]."""
        outside = np.flatnonzero(tokens >= self._limit)
        if len(outside):
            self._problems.setdefault("outside", (
                f"{self._name} holds token {int(tokens[outside[0]]):,} at position "
                f"{self._position + int(outside[0]):,}, outside the vocabulary of {self._limit:,}"
            ))  # fmt: skip
        first, last = np.searchsorted(self._ends, [self._position, self._position + len(tokens)])
        ends = self._ends[first:last]
        wrong = np.flatnonzero(tokens[ends - self._position] != self._separator)
        if len(wrong):
            self._problems.setdefault("separator", (
                f"{self._name}: no separator at position {int(ends[wrong[0]]):,}, before the next "
                "document"
            ))  # fmt: skip
        if self._unknown is not None and self._unknown_token is not None:
            self._unknown += int(np.count_nonzero(tokens == self._unknown_token))
        self._position += len(tokens)

    def end_of(self, shard: FileRecord) -> None:
        """Go on behind a shard, which may have been unreadable."""
        self._shards += shard.count
        self._complete = self._complete and self._position == self._shards
        self._position = self._shards

    def problems(self, record: SplitRecord) -> Iterator[str]:
        """Yield the first problem of each kind, after the last token."""
        yield from self._problems.values()
        if self._complete and self._unknown not in (None, record.unknown):
            yield (
                f"{self._name} holds {self._unknown:,} unknown tokens instead of {record.unknown:,}"
            )
