"""Writes one split of a store: tokens into shards of equal size, checksummed while written."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO, Literal

import numpy as np

from coterie.data.encode import Encoded
from coterie.data.manifest import FileRecord, SplitRecord
from coterie.data.store import OFFSETS_DTYPE
from coterie.tokenizer.interface import Tokenizer


def dtype_for(tokenizer: Tokenizer) -> Literal["uint16", "uint32"]:
    """Return the smallest type that holds every token number."""
    return "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"


class _File:
    """One binary file that counts and hashes what goes into it."""

    def __init__(self, path: Path, dtype: str) -> None:
        self.path = path
        self.count = 0
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._digest = hashlib.sha256()
        self._file: IO[bytes] = open(path, "wb")  # noqa: SIM115 - closed by `close`

    def write(self, numbers: np.ndarray) -> None:
        content = numbers.astype(self._dtype).tobytes()
        self._file.write(content)
        self._digest.update(content)
        self.count += len(numbers)

    def close(self) -> FileRecord:
        self._file.close()
        return FileRecord(file=self.path.name, count=self.count, sha256=self._digest.hexdigest())


class SplitWriter:
    """Takes encoded pieces in order and leaves shards, offsets and a record of them."""

    def __init__(self, folder: Path, name: str, tokenizer: Tokenizer, shard_tokens: int) -> None:
        self._folder = folder
        self._name = name
        self._separator = np.array([tokenizer.end_of_text], dtype=np.uint32)
        self._limit = tokenizer.vocab_size
        self._dtype = dtype_for(tokenizer)
        self._shard_tokens = shard_tokens
        self._shards: list[FileRecord] = []
        self._open: _File | None = None
        self._offsets: _File | None = None
        self._counts = dict.fromkeys(("tokens", "documents", "characters", "bytes", "unknown"), 0)

    def add(self, piece: Encoded) -> None:
        """Append a piece; where it begins a document, a separator goes before it."""
        if piece.starts and len(piece.tokens):
            self._start_document()
        self._write(piece.tokens)
        self._counts["characters"] += piece.characters
        self._counts["bytes"] += piece.bytes
        self._counts["unknown"] += piece.unknown

    def _start_document(self) -> None:
        if self._counts["documents"]:
            self._write(self._separator)
        if self._offsets is None:
            self._offsets = _File(self._folder / f"{self._name}-documents.bin", OFFSETS_DTYPE)
        self._offsets.write(np.array([self._counts["tokens"]], dtype=np.uint64))
        self._counts["documents"] += 1

    def _write(self, tokens: np.ndarray) -> None:
        assert not len(tokens) or int(tokens.max()) < self._limit, "a token outside the vocabulary"
        while len(tokens):
            if self._open is None:
                name = f"{self._name}-{len(self._shards):05d}.bin"
                self._open = _File(self._folder / name, self._dtype)
            part = tokens[: self._shard_tokens - self._open.count]
            self._open.write(part)
            self._counts["tokens"] += len(part)
            tokens = tokens[len(part) :]
            if self._open.count == self._shard_tokens:
                self._shards.append(self._open.close())
                self._open = None

    def finish(self) -> SplitRecord:
        if self._open is not None:
            self._shards.append(self._open.close())
            self._open = None
        offsets = self._offsets.close() if self._offsets is not None else None
        return SplitRecord(**self._counts, shards=tuple(self._shards), offsets=offsets)
