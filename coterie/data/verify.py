"""Checks every byte of a token store and everything the manifest claims about it."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from coterie.data.manifest import (
    FILE_NAME,
    FileRecord,
    Manifest,
    SplitRecord,
    TokenizerRecord,
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


def verify_plain_store(
    path: Path | str, *, texts: bool = True, progress: OnProgress | None = None
) -> list[str]:
    """Return every problem of a store of one's own tokens; none means that it is sound.

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
    tokenizer, problems = own_tokenizer(path, manifest.tokenizer)
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


def own_tokenizer(path: Path, claimed: TokenizerRecord) -> tuple[Tokenizer | None, list[str]]:
    """Return the tokenizer, unless it is not the manifest's, and what is wrong with it."""
    if file_problem(path / TOKENIZER_FILE):
        return None, []  # reported with the other files
    try:
        content = read_json(path / TOKENIZER_FILE, StoreError)
        tokenizer = load_tokenizer(path)
    except (OSError, CoterieError) as error:
        return None, [error.message if isinstance(error, CoterieError) else str(error)]
    problems = tokenizer_problems(tokenizer, claimed)
    if not problems and content | {"format": ""} != tokenizer.to_json() | {"format": ""}:
        problems = [f"{TOKENIZER_FILE} holds more or other things than its tokenizer"]
    return (None if problems else tokenizer), problems


def _strangers(path: Path, manifest: Manifest | None) -> list[str]:
    """Return what lies in the folder without belonging to the store, whatever it is."""
    if manifest is None:
        return strangers(path, None)
    return strangers(path, {f.file for record in manifest.splits.values() for f in record.files})


def strangers(path: Path, known: set[str] | None) -> list[str]:
    """Return what lies in a store's folder beside manifest, tokenizer and what is known.

    Args:
        path: the folder.
        known: names; None: it is not known what belongs there.
    """
    try:
        with os.scandir(path) as entries:
            found = {entry.name: entry.stat(follow_symlinks=False).st_mode for entry in entries}
    except OSError as error:
        return [] if known is None else [f"the folder cannot be listed: {error.strerror}"]
    except ValueError:  # a NUL in the name
        return []
    if known is None:
        known = {name for name in found if _OF_A_STORE.fullmatch(name)}
        if not known:
            return []  # some other folder
    odd = sorted(found.keys() - known - {FILE_NAME, TOKENIZER_FILE})
    return [
        f"{printable(name, keep='')} ({kind_of_file(found[name])}) does not belong to the store"
        for name in odd
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
        yield from _source_problems(
            name, record, starts[:0] if wrong else starts, np.concatenate(ids or [starts[:0]])
        )
    dtype = np.dtype(manifest.dtype).newbyteorder("<")
    begins = itertools.accumulate((shard.count for shard in record.shards), initial=0)
    checks = [_TokenCheck(name, manifest, starts[:0] if wrong else starts, tokenizer, begin)
              for begin, _ in zip(begins, record.shards, strict=False)]  # fmt: skip

    def read(shard: FileRecord, check: _TokenCheck) -> list[str]:
        return list(_read(path, shard, dtype, check.add))

    # Hashing and numpy let go of the interpreter: as many files at once as there are processors.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for problems in pool.map(read, record.shards, checks):
            yield from problems
    yield from _token_problems(name, record, checks)


def _token_problems(name: str, record: SplitRecord, checks: list[_TokenCheck]) -> Iterator[str]:
    """Yield the first problem of each kind in the tokens of a split."""
    yield from {kind: each for check in reversed(checks) for kind, each in check.problems.items()
                }.values()  # fmt: skip
    found = [check.unknown for check in checks if check.unknown is not None]
    complete = sum(check.seen for check in checks) == sum(shard.count for shard in record.shards)
    if complete and len(found) == len(checks) and sum(found) != record.unknown:
        yield f"{name} holds {sum(found):,} unknown tokens instead of {record.unknown:,}"


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
    """Looks at a shard's tokens as they come: in the vocabulary, separated, how many unknown.

    Attributes:
        problems: the first of each kind.
        unknown: tokens that stand for what the vocabulary cannot say; None: the tokenizer is lost.
        seen: tokens looked at.
    """

    def __init__(
        self,
        name: str,
        manifest: Manifest,
        starts: np.ndarray,
        tokenizer: Tokenizer | None,
        position: int,
    ) -> None:
        self._name = name
        self._limit = manifest.tokenizer.vocab_size
        self._separator = manifest.tokenizer.end_of_text
        self._ends = np.asarray(starts[1:]).astype(np.int64) - 1
        self._unknown_token = tokenizer.unknown_token if tokenizer else None
        self.unknown: int | None = 0 if tokenizer else None
        self.seen = 0
        self.problems: dict[str, str] = {}
        self._position = position

    def add(self, tokens: np.ndarray) -> None:
        """Look at the next tokens [N]."""
        outside = np.flatnonzero(tokens >= self._limit)
        if len(outside):
            self.problems.setdefault("outside", (
                f"{self._name} holds token {int(tokens[outside[0]]):,} at position "
                f"{self._position + int(outside[0]):,}, outside the vocabulary of {self._limit:,}"
            ))  # fmt: skip
        first, last = np.searchsorted(self._ends, [self._position, self._position + len(tokens)])
        ends = self._ends[first:last]
        wrong = np.flatnonzero(tokens[ends - self._position] != self._separator)
        if len(wrong):
            self.problems.setdefault("separator", (
                f"{self._name}: no separator at position {int(ends[wrong[0]]):,}, before the next "
                "document"
            ))  # fmt: skip
        if self.unknown is not None and self._unknown_token is not None:
            self.unknown += int(np.count_nonzero(tokens == self._unknown_token))
        self._position += len(tokens)
        self.seen += len(tokens)
