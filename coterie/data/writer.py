"""Writes one split of a store: tokens into shards of equal size, checksummed while written."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from coterie.data.encode import Encoded
from coterie.data.manifest import FileRecord, SourceRecord, SplitRecord
from coterie.data.store import OFFSETS_DTYPE, SOURCES_DTYPE
from coterie.foundation.errors import StoreError
from coterie.tokenizer.interface import Tokenizer

_CHUNK = 1 << 20
_TOGETHER = 1 << 16  # numbers


def dtype_for(tokenizer: Tokenizer) -> Literal["uint16", "uint32"]:
    """Return the smallest type that holds every token number."""
    return "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"


class _File:
    """One binary file that counts and hashes what goes into it."""

    def __init__(self, path: Path, dtype: str, left: FileRecord | None = None) -> None:
        """Begin a file, or go on behind what was `left` of it.

        Raises:
            StoreError: what was left is not there.
        """
        self.path = path
        self.count = left.count if left else 0
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._digest = hashlib.sha256()
        self._held: list[np.ndarray] = []
        self._waiting = 0
        try:
            self._file: IO[bytes] = open(path, "r+b" if left else "wb")  # noqa: SIM115 - `close`
        except FileNotFoundError as error:
            raise StoreError(f"{path} is not there any more.") from error
        missing = self.count * self._dtype.itemsize
        while missing and (content := self._file.read(min(missing, _CHUNK))):
            self._digest.update(content)
            missing -= len(content)
        if left and (missing or self._digest.hexdigest() != left.sha256):
            self._file.close()
            raise StoreError(f"{path} is not what was left.")
        self._file.truncate()

    def write(self, numbers: np.ndarray) -> None:
        self._held.append(numbers)
        self._waiting += len(numbers)
        self.count += len(numbers)
        if self._waiting >= _TOGETHER:
            self._write_held()

    def _write_held(self) -> None:
        """Write what was gathered: most documents are too short to be worth a call each."""
        if self._held:
            content = np.concatenate(self._held, dtype=self._dtype, casting="unsafe").tobytes()
            self._held, self._waiting = [], 0
            self._file.write(content)
            self._digest.update(content)

    def record(self) -> FileRecord:
        """Return what is written so far, once the system has it."""
        self._write_held()
        self._file.flush()
        return FileRecord(file=self.path.name, count=self.count, sha256=self._digest.hexdigest())

    def close(self) -> FileRecord:
        try:
            self._write_held()
        finally:
            self._file.close()
        return FileRecord(file=self.path.name, count=self.count, sha256=self._digest.hexdigest())


class SplitWriter:
    """Takes encoded pieces in order and leaves shards, offsets and a record of them.

    Args:
        folder, name: where, and which split.
        tokenizer: what made the tokens.
        shard_tokens: tokens in every shard but the last.
        sources: the inputs that documents may come from.
        left: the `state` of a writer that was interrupted, to go on from.

    Raises:
        StoreError: a file is not what was left.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        tokenizer: Tokenizer,
        shard_tokens: int,
        sources: Sequence[str] = ("",),
        left: dict[str, Any] | None = None,
    ) -> None:
        self._folder = folder
        self._name = name
        self._separator = np.array([tokenizer.end_of_text], dtype=np.uint32)
        self._limit = tokenizer.vocab_size
        self._dtype = dtype_for(tokenizer)
        self._shard_tokens = shard_tokens
        self._numbers = {source: number for number, source in enumerate(sources)}
        self._shards: list[FileRecord] = []
        self._open: dict[str, _File] = {}  # by what they hold
        self._counts = dict.fromkeys(("tokens", "documents", "characters", "bytes", "unknown"), 0)
        if left is not None:
            self._counts.update(left["counts"])
            self._shards = [FileRecord(**shard) for shard in left["shards"]]
            with contextlib.ExitStack() as stack:
                stack.callback(self.close)
                for shard in self._shards:
                    _File(folder / shard.file, self._dtype, shard).close()
                for what, record in left["open"].items():
                    self._file(what, FileRecord(**record))
                stack.pop_all()

    @property
    def whole_shards(self) -> int:
        """How many shards are full."""
        return len(self._shards)

    def state(self) -> dict[str, Any]:
        """Return all that is needed to go on from here, as JSON."""
        return {
            "counts": dict(self._counts),
            "shards": [shard.model_dump() for shard in self._shards],
            "open": {what: file.record().model_dump() for what, file in self._open.items()},
        }

    def add(self, piece: Encoded) -> None:
        """Append a piece; where it begins a document, a separator goes before it."""
        if piece.starts and len(piece.tokens):
            self._start_document(piece.origin)
        self._write(piece.tokens)
        self._counts["characters"] += piece.characters
        self._counts["bytes"] += piece.bytes
        self._counts["unknown"] += piece.unknown

    def _start_document(self, origin: str) -> None:
        if self._counts["documents"]:
            self._write(self._separator)
        self._file("documents").write(np.array([self._counts["tokens"]], dtype=np.uint64))
        if len(self._numbers) > 1:
            self._file("sources").write(np.array([self._numbers[origin]], dtype=np.uint16))
        self._counts["documents"] += 1

    def _file(self, what: str, left: FileRecord | None = None) -> _File:
        """Return the open file of tokens, documents or sources."""
        if what not in self._open:
            name = f"{len(self._shards):05d}" if what == "tokens" else what
            types = {"documents": OFFSETS_DTYPE, "sources": SOURCES_DTYPE}
            path = self._folder / f"{self._name}-{name}.bin"
            self._open[what] = _File(path, types.get(what, self._dtype), left)
        return self._open[what]

    def _write(self, tokens: np.ndarray) -> None:
        assert not len(tokens) or int(tokens.max()) < self._limit, "a token outside the vocabulary"
        while len(tokens):
            file = self._file("tokens")
            part = tokens[: self._shard_tokens - file.count]
            file.write(part)
            self._counts["tokens"] += len(part)
            tokens = tokens[len(part) :]
            if file.count == self._shard_tokens:
                self._shards.append(self._open.pop("tokens").close())

    def close(self) -> None:
        """Close what an interruption left open."""
        for file in self._open.values():
            file.close()

    def finish(self) -> SplitRecord:
        records = {what: file.close() for what, file in self._open.items()}
        self._open = {}
        if "tokens" in records:
            self._shards.append(records["tokens"])
        return SplitRecord(
            **self._counts,
            shards=tuple(self._shards),
            offsets=records.get("documents"),
            source_ids=records.get("sources"),
            sources=self._of_sources() if len(self._numbers) > 1 else (),
        )

    def _of_sources(self) -> tuple[SourceRecord, ...]:
        """Count documents and tokens of each source in the files that were written."""
        parts = [self._folder / f"{self._name}-{what}.bin" for what in ("documents", "sources")]
        if not self._counts["documents"]:
            return tuple(SourceRecord(documents=0, tokens=0) for _ in self._numbers)
        starts = np.memmap(parts[0], dtype=OFFSETS_DTYPE, mode="r")
        ids = np.memmap(parts[1], dtype=SOURCES_DTYPE, mode="r")
        return counted_sources(starts, ids, self._counts["tokens"], len(self._numbers))


def counted_sources(
    starts: np.ndarray, ids: np.ndarray, tokens: int, sources: int
) -> tuple[SourceRecord, ...]:
    """Return how many documents and tokens of a split are of each source.

    Args:
        starts: where documents begin [documents].
        ids: the number of each one's source [documents].
        tokens: of the split.
        sources: how many there are.
    """
    documents, sizes = np.zeros(sources, dtype=np.int64), np.zeros(sources, dtype=np.int64)
    for at in range(0, len(ids), _CHUNK):
        part = np.asarray(ids[at : at + _CHUNK]).astype(np.int64)
        ends = np.asarray(starts[at + 1 : at + _CHUNK + 1]).astype(np.int64)
        if len(ends) < len(part):
            ends = np.append(ends, tokens)
        documents += np.bincount(part, minlength=sources)
        np.add.at(sizes, part, ends - np.asarray(starts[at : at + _CHUNK]).astype(np.int64))
    return tuple(
        SourceRecord(documents=int(count), tokens=int(size))
        for count, size in zip(documents, sizes, strict=True)
    )
