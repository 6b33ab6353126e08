"""Computes again what a store claims about its text: tokens, characters, bytes, the split.

The tokens are decoded, then their text goes the way it went when the store was prepared. That takes
a tokenizer which keeps the text; where decoding does not return it, nothing can be said.
"""

from __future__ import annotations

import codecs
import functools
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from coterie.data.documents import Document
from coterie.data.encode import encode_pieces
from coterie.data.manifest import FileRecord, Manifest
from coterie.data.split import SURVEYED, OnProgress, Piece, Split, split_rule, survey
from coterie.data.store import OFFSETS_DTYPE
from coterie.foundation.errors import DataError, StoreError
from coterie.tokenizer.interface import Tokenizer

_CHUNK = 1 << 20  # numbers read together


def read_numbers(file: Path, dtype: np.dtype, digest: Any = None) -> Iterator[np.ndarray]:
    """Yield the numbers of a binary file in stretches [N]; `digest` is fed its bytes."""
    with open(file, "rb") as stream:
        while content := stream.read(_CHUNK * dtype.itemsize):
            if digest is not None:
                digest.update(content)
            yield np.frombuffer(content, dtype, count=len(content) // dtype.itemsize)


def documents_of(
    path: Path, name: Split, manifest: Manifest, tokenizer: Tokenizer
) -> Iterator[Document]:
    """Yield the documents of a split as text, long ones in pieces.

    Raises:
        StoreError: one is not UTF-8.
    """
    return _SplitText(path, name, manifest, tokenizer).documents()


def recount_problems(
    path: Path, manifest: Manifest, tokenizer: Tokenizer, progress: OnProgress | None = None
) -> list[str]:
    """Return what the text of a store contradicts; its numbers must have been checked before.

    Raises:
        OSError: a file cannot be read.
    """
    if not tokenizer.keeps_text:
        return []
    splits = [_SplitText(path, name, manifest, tokenizer) for name in manifest.splits]
    total = sum(record.characters for record in manifest.splits.values())
    done, problems = 0, []
    for split in splits:
        try:
            for characters in split.check():
                done += characters
                if progress is not None:
                    progress("checking", done, total)
        except StoreError as error:
            problems.append(error.message)
    if manifest.split.used == "documents" and not problems:
        problems += _split_problems(splits, manifest)
    return problems


class _SplitText:
    """The text of one split."""

    def __init__(self, path: Path, name: Split, manifest: Manifest, tokenizer: Tokenizer) -> None:
        self.record = manifest.splits[name]
        self.tokens = sum(shard.count for shard in self.record.shards)
        self._name: Split = name
        self._path = path
        self._dtype = np.dtype(manifest.dtype).newbyteorder("<")
        self._tokenizer = tokenizer

    def documents(self) -> Iterator[Document]:
        """Yield the documents, long ones in pieces.

        Raises:
            StoreError: one is not UTF-8.
        """
        bytes_of = functools.cache(self._tokenizer.token_bytes)
        decoder = codecs.getincrementaldecoder("utf-8")()
        for begins, ends, tokens in self._stretches():
            try:
                content = b"".join(map(bytes_of, tokens.tolist()))
                yield Document(self._name, decoder.decode(content, ends), continued=not begins)
            except UnicodeDecodeError as error:
                raise StoreError(f"{self._name}: a document is not UTF-8 text: {error}") from error

    def check(self) -> Iterator[int]:
        """Compare tokens and counts with those of the text; yield characters as they are done.

        Raises:
            StoreError: they differ.
        """
        counts = {"characters": 0, "bytes": 0}
        # A character that the tokenizer does not know cannot be encoded again, and its own length
        # is between one and that of the token which stands for it.
        encoded = self._counted() if self.record.unknown else self._encoded()
        for characters, size in encoded:
            counts["characters"] += characters
            counts["bytes"] += size
            yield characters
        for what, count in counts.items():
            claimed = getattr(self.record, what)
            if not count - self._slack() <= claimed <= count:
                raise StoreError(f"{self._name} holds {count:,} {what} instead of {claimed:,}")

    def _slack(self) -> int:
        if not self.record.unknown or self._tokenizer.unknown_token is None:
            return 0
        width = len(self._tokenizer.token_bytes(self._tokenizer.unknown_token))
        return self.record.unknown * (width - 1)

    def _counted(self) -> Iterator[tuple[int, int]]:
        for document in self.documents():
            yield len(document.text), len(document.text.encode("utf-8"))

    def _encoded(self) -> Iterator[tuple[int, int]]:
        """Yield (characters, bytes) of each piece after comparing its tokens."""
        pieces = (Piece(self._name, document) for document in self.documents())
        stored = _Row(self._tokens())
        for piece in encode_pieces(pieces, self._tokenizer):
            if piece.problem:
                raise StoreError(f"{self._name} cannot be encoded again: {piece.problem}")
            if piece.starts and stored.position:
                stored.take(1)  # the separator
            place = stored.position
            tokens = stored.take(len(piece.tokens))
            if not np.array_equal(tokens, piece.tokens):
                same = tokens == piece.tokens[: len(tokens)]
                place += int(np.argmin(same)) if not same.all() else len(tokens)
                raise self._differs(place)
            yield piece.characters, piece.bytes
        if stored.position != self.tokens:
            raise self._differs(stored.position)

    def _differs(self, place: int) -> StoreError:
        return StoreError(
            f"{self._name}: from position {place:,} on, the tokens are not those which the "
            "tokenizer gives for their text"
        )

    def _stretches(self) -> Iterator[tuple[bool, bool, np.ndarray]]:
        """Yield (begins a document, ends it, tokens [N]), separators left out."""
        offsets = self.record.offsets
        starts = np.concatenate(list(self._numbers(offsets, OFFSETS_DTYPE))) if offsets else []
        starts = [int(start) for start in starts]
        ends = [*(start - 1 for start in starts[1:]), self.tokens]
        number = position = 0
        for chunk in self._tokens():
            stop = position + len(chunk)
            while number < len(starts) and starts[number] < stop:
                begin, end = max(starts[number], position), min(ends[number], stop)
                if begin < end:
                    yield (
                        begin == starts[number],
                        end == ends[number],
                        chunk[begin - position : end - position],
                    )
                if ends[number] > stop:
                    break
                number += 1
            position = stop

    def _tokens(self) -> Iterator[np.ndarray]:
        for shard in self.record.shards:
            yield from self._numbers(shard, self._dtype)

    def _numbers(self, part: FileRecord, dtype: Any) -> Iterator[np.ndarray]:
        return read_numbers(self._path / part.file, np.dtype(dtype))


class _Row:
    """Numbers that come in stretches, taken in other stretches."""

    def __init__(self, stretches: Iterator[np.ndarray]) -> None:
        self.position = 0
        self._stretches = stretches
        self._rest = np.empty(0, dtype=np.uint32)

    def take(self, count: int) -> np.ndarray:
        """Return the next `count` numbers, fewer at the end."""
        parts, missing = [], count
        while missing:
            if not len(self._rest):
                self._rest = next(self._stretches, self._rest)
                if not len(self._rest):
                    break
            parts.append(self._rest[:missing])
            self._rest = self._rest[missing:]
            missing -= len(parts[-1])
        self.position += count - missing
        return np.concatenate(parts) if parts else self._rest


def _split_problems(splits: list[_SplitText], manifest: Manifest) -> Iterator[str]:
    """Yield where documents stand on another side than their hashes say."""
    if any(split.record.unknown for split in splits):
        return  # the text that was hashed is not known
    choice = manifest.split
    documents = itertools.chain.from_iterable(split.documents() for split in splits)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "keys"
        try:
            rule = split_rule(
                survey(documents, choice.seed, file), "documents", choice.valid_fraction
            )
        except DataError as error:
            yield error.message
            return
        keys = np.fromfile(file, dtype=SURVEYED)["key"]
    sizes = [split.record.offsets.count if split.record.offsets else 0 for split in splits]
    held_out = np.repeat([name == "valid" for name in manifest.splits], sizes)
    wrong = np.flatnonzero((keys < np.uint64(rule.threshold)) != held_out)
    if rule.kind != "documents" or len(wrong):
        yield (
            f"{len(wrong):,} of {len(keys):,} documents are on the wrong side of a split with seed "
            f"{choice.seed} and valid_fraction {choice.valid_fraction}"
        )
