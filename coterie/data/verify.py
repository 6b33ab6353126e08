"""Checks every byte of a token store and everything the manifest claims about it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from coterie.data.manifest import FILE_NAME, FileRecord, Manifest, SplitRecord, read_manifest
from coterie.data.store import OFFSETS_DTYPE, size_problems
from coterie.foundation.errors import CoterieError, StoreError
from coterie.foundation.files import sha256_file
from coterie.tokenizer.saving import FILE_NAME as TOKENIZER_FILE
from coterie.tokenizer.saving import load_tokenizer

_CHUNK = 1 << 22  # tokens looked at together


def verify_store(path: Path | str) -> list[str]:
    """Return every problem of a store; none means that it is sound.

    Any changed byte, missing, added or shortened file, wrong document offset, token outside the
    vocabulary or foreign tokenizer is found.
    """
    path = Path(path)
    try:
        manifest = read_manifest(path)
    except StoreError as error:
        return [error.message]
    problems = _tokenizer_problems(path, manifest)
    problems += size_problems(path, manifest)
    problems += _stray_files(path, manifest)
    for name, record in manifest.splits.items():
        problems += _count_problems(name, record, manifest)
        problems += _checksum_problems(path, record)
        problems += _range_problems(path, record, manifest)
        problems += _offset_problems(path, name, record, manifest)
    return problems


def _tokenizer_problems(path: Path, manifest: Manifest) -> list[str]:
    try:
        tokenizer = load_tokenizer(path)
    except CoterieError as error:
        return [error.message]
    claimed = manifest.tokenizer
    if tokenizer.fingerprint != claimed.fingerprint:
        return [
            f"{TOKENIZER_FILE} is not the tokenizer that the tokens were made with "
            f"(fingerprint {tokenizer.fingerprint[:12]}… instead of {claimed.fingerprint[:12]}…)"
        ]
    return []


def _stray_files(path: Path, manifest: Manifest) -> list[str]:
    known = {FILE_NAME, TOKENIZER_FILE}
    for record in manifest.splits.values():
        known |= {part.file for part in _parts(record)}
    found = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
    return [f"{name} does not belong to the store" for name in sorted(found - known)]


def _parts(record: SplitRecord) -> list[FileRecord]:
    return [*record.shards, *([record.offsets] if record.offsets else [])]


def _count_problems(name: str, record: SplitRecord, manifest: Manifest) -> list[str]:
    problems = []
    total = sum(shard.count for shard in record.shards)
    if total != record.tokens:
        problems.append(f"the shards of {name} hold {total:,} tokens instead of {record.tokens:,}")
    for shard in record.shards[:-1]:
        if shard.count != manifest.shard_tokens:
            problems.append(
                f"{shard.file} holds {shard.count:,} tokens instead of {manifest.shard_tokens:,}"
            )
    count = record.offsets.count if record.offsets else 0
    if count != record.documents:
        problems.append(f"{name} has {count:,} document offsets instead of {record.documents:,}")
    return problems


def _checksum_problems(path: Path, record: SplitRecord) -> list[str]:
    return [
        f"{part.file} does not have its checksum: its content changed"
        for part in _parts(record)
        if (path / part.file).is_file() and sha256_file(path / part.file) != part.sha256
    ]


def _range_problems(path: Path, record: SplitRecord, manifest: Manifest) -> list[str]:
    problems = []
    limit = manifest.tokenizer.vocab_size
    for shard in record.shards:
        tokens = _numbers(path / shard.file, np.dtype(manifest.dtype).newbyteorder("<"))
        for start in range(0, len(tokens), _CHUNK):
            outside = np.flatnonzero(tokens[start : start + _CHUNK] >= limit)
            if len(outside):
                place = start + int(outside[0])
                problems.append(
                    f"{shard.file} holds token {int(tokens[place]):,} at position {place:,}, "
                    f"outside the vocabulary of {limit:,}"
                )
                break
    return problems


def _offset_problems(path: Path, name: str, record: SplitRecord, manifest: Manifest) -> list[str]:
    """Check that documents begin at 0, rise, stay inside, and follow a separator."""
    if record.offsets is None:
        return []
    starts = _numbers(path / record.offsets.file, np.dtype(OFFSETS_DTYPE)).astype(np.int64)
    file = record.offsets.file
    if not len(starts):
        return []
    if starts[0] != 0:
        return [f"{file}: the first document begins at {starts[0]:,}, not at 0"]
    falling = np.flatnonzero(np.diff(starts) <= 0)
    if len(falling):
        return [f"{file}: document {int(falling[0]) + 1:,} does not begin after the one before it"]
    if starts[-1] >= record.tokens or starts[-1] < 0:
        return [f"{file}: the last document begins at {starts[-1]:,}, after the end of {name}"]
    return _separator_problems(path, name, record, manifest, starts)


def _separator_problems(
    path: Path, name: str, record: SplitRecord, manifest: Manifest, starts: np.ndarray
) -> list[str]:
    wanted = manifest.tokenizer.end_of_text
    first = 0
    for shard in record.shards:
        tokens = _numbers(path / shard.file, np.dtype(manifest.dtype).newbyteorder("<"))
        ends = starts[1:] - 1 - first
        ends = ends[(ends >= 0) & (ends < len(tokens))]
        wrong = np.flatnonzero(tokens[ends] != wanted)
        if len(wrong):
            place = int(ends[wrong[0]]) + first
            return [f"{name}: no separator at position {place:,}, before the next document"]
        first += shard.count
    return []


def _numbers(path: Path, dtype: np.dtype) -> np.ndarray:
    """Return a file's whole numbers, memory-mapped; none if it is missing or too short."""
    if not path.is_file() or path.stat().st_size < dtype.itemsize:
        return np.empty(0, dtype=dtype)
    count = path.stat().st_size // dtype.itemsize
    return np.memmap(path, dtype=dtype, mode="r", shape=(count,))
