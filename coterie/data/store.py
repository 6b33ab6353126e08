"""The token store: memory-mapped shards, document boundaries and the tokenizer, in one folder.

```
STORE/manifest.json            what everything is, with checksums; written last
STORE/tokenizer.json           the tokenizer, complete
STORE/train-00000.bin …        token numbers, little-endian uint16 or uint32 by vocabulary
STORE/train-documents.bin      where each document begins, little-endian uint64
STORE/train-sources.bin        of several sources: each document's, little-endian uint16
STORE/valid-…                  the same for the part held out
```
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np

from coterie.data.manifest import (
    FILE_NAME,
    FileRecord,
    Manifest,
    SplitRecord,
    TokenizerRecord,
    contradictions,
    damaged,
    read_manifest,
)
from coterie.data.mirror import mirrored
from coterie.data.shards import SUPPORTED, ShardFile
from coterie.data.tokens import TokenArray
from coterie.foundation.errors import StoreError, TokenizerError, nearest
from coterie.foundation.printable import printable
from coterie.foundation.swap import restore
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.saving import FILE_NAME as TOKENIZER_FILE
from coterie.tokenizer.saving import load_tokenizer

OFFSETS_DTYPE = "<u8"
SOURCES_DTYPE = "<u2"


class Store:
    """A token store opened for reading.

    Attributes:
        path: its folder.
        manifest: what it says about itself.
        tokenizer: the tokenizer that made its tokens.
    """

    def __init__(self, path: Path, manifest: Manifest, tokenizer: Tokenizer) -> None:
        self.path = path
        self.manifest = manifest
        self.tokenizer = tokenizer
        self._arrays: dict[str, TokenArray] = {}
        self._files: dict[str, list[ShardFile]] = {}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides the tokens."""
        return self.manifest.fingerprint

    @property
    def sources(self) -> dict[str, Store]:
        """What there is to mix, by name: itself alone."""
        return {self.path.name: self}

    @property
    def mix(self) -> None:
        """How its sources are mixed, if it says so."""

    def tokens(self, split: str) -> TokenArray:
        """Return all tokens of `train` or `valid`, memory-mapped.

        Raises:
            StoreError: there is no such split, or a file cannot be read; later, where a token
                that is read lies outside the vocabulary.
        """
        if split not in self._arrays:
            record = self._record(split)
            dtype = np.dtype(self.manifest.dtype).newbyteorder("<")
            shards = [self._map(shard, dtype) for shard in record.shards]
            vocab_size = self.manifest.tokenizer.vocab_size
            if SUPPORTED:
                self._files[split] = [ShardFile(self.path, s, dtype) for s in record.shards]
            self._arrays[split] = TokenArray(
                shards,
                self.manifest.shard_tokens,
                vocab_size,
                self._files.get(split, ()),
                lambda: self._starts(record),
            )
        return self._arrays[split]

    def check_content(self) -> None:
        """Make sure that all tokens are those of the manifest; unless touched, they are read once.

        Raises:
            StoreError: a shard was changed.
        """
        for split in self.manifest.splits:
            self.tokens(split)
            for file in self._files.get(split, ()):
                file.check()
            record = self._record(split)
            for part, dtype in (
                (record.offsets, OFFSETS_DTYPE),
                (record.source_ids, SOURCES_DTYPE),
            ):
                if SUPPORTED and part is not None:
                    ShardFile(self.path, part, np.dtype(dtype)).check()

    def document_starts(self, split: str) -> np.ndarray:
        """Return where each document of a split begins, uint64 [documents], memory-mapped.

        Document i reaches to where the next one begins; its last token is then the separator.
        """
        offsets = self._record(split).offsets
        if offsets is None:
            return np.empty(0, dtype=OFFSETS_DTYPE)
        return self._map(offsets, np.dtype(OFFSETS_DTYPE))

    def document_sources(self, split: str) -> np.ndarray:
        """Return the number of each document's source in `manifest.sources`, uint16 [documents].

        Of a store with one source, which names none, they are zeros.
        """
        record = self._record(split)
        if record.source_ids is None:
            return np.zeros(record.documents, dtype=SOURCES_DTYPE)
        return self._map(record.source_ids, np.dtype(SOURCES_DTYPE))

    def _starts(self, record: SplitRecord) -> np.ndarray:
        """Read where all documents of a split begin, int64 [documents].

        Raises:
            StoreError: the file cannot be read, or holds what cannot be.
        """
        starts = np.empty(record.documents, dtype=OFFSETS_DTYPE)
        if record.offsets is not None:
            if SUPPORTED:
                ShardFile(self.path, record.offsets, starts.dtype).read_into(starts, 0)
            else:
                starts[:] = self._map(record.offsets, starts.dtype)
        problem = offset_problem(starts, record)
        if problem:
            raise damaged(self.path, problem)
        return starts.astype(np.int64)

    def characters_per_token(self, split: str) -> float | None:
        """Return the mean length of a token's text; `None` for an empty split."""
        record = self._record(split)
        return record.characters / record.tokens if record.tokens else None

    def _map(self, part: FileRecord, dtype: np.dtype) -> np.ndarray:
        try:
            return np.memmap(self.path / part.file, dtype=dtype, mode="r", shape=(part.count,))
        except (OSError, ValueError) as error:  # ValueError: shorter than its record says
            raise damaged(self.path, f"{part.file} cannot be read: {error}") from error

    def _record(self, split: str) -> SplitRecord:
        if split not in self.manifest.splits:
            raise StoreError(
                f"The store {self.path} has no split “{split}”; "
                f"{nearest(split, self.manifest.splits)}"
            )
        return self.manifest.splits[split]

    def __repr__(self) -> str:
        parts = (f"{name} {record.tokens:,}" for name, record in self.manifest.splits.items())
        return f"<Store {self.path}: {', '.join(parts)} tokens>"


def is_store(path: Path | str) -> bool:
    """Whether a folder looks like a token store."""
    restore(path)
    return all(os.path.isfile(Path(path) / name) for name in (FILE_NAME, TOKENIZER_FILE))


def open_plain_store(path: Path | str, tokenizer: Tokenizer | None = None) -> Store:
    """Open a store of one's own tokens after every check that need not read its tokens.

    The manifest must agree with itself, with the sizes of the files, with the tokenizer and with
    the ends of the document offsets. What shards hold is left to `verify_store`, but for tokens
    outside the vocabulary, which are refused as they are read.

    Args:
        path: the folder, or a URL; see `mirror`.
        tokenizer: what the store must have been made with, if that matters.

    Raises:
        StoreError: there is no store, it is incomplete or damaged, or another tokenizer made it.
    """
    path = mirrored(path)
    restore(path)
    manifest = read_manifest(path)
    _refuse(path, [*contradictions(manifest), *file_problems(path, manifest)])
    try:
        own = load_tokenizer(path)
    except TokenizerError as error:
        raise damaged(path, error.message) from error
    _refuse(path, tokenizer_problems(own, manifest.tokenizer))
    if tokenizer is not None and tokenizer.fingerprint != own.fingerprint:
        raise StoreError(
            f"The store {path} was made with another tokenizer: {own!r} there, "
            f"{tokenizer!r} was asked for.",
            hint="Prepare the text again with the tokenizer that you want, or use the store's.",
        )
    store = Store(path, manifest, own)
    for name, record in manifest.splits.items():
        starts = store.document_starts(name)
        if len(starts) and (starts[0] != 0 or starts[-1] >= record.tokens):
            raise damaged(path, f"the documents of {name} do not lie within its tokens")
    return store


def file_problems(path: Path, manifest: Manifest) -> list[str]:
    """Return what is wrong with the kinds and the sizes of a store's files."""
    width = np.dtype(manifest.dtype).itemsize
    sizes: dict[str, int | None] = {FILE_NAME: None, TOKENIZER_FILE: None}
    for record in manifest.splits.values():
        for part in record.files:
            wide = {id(record.offsets): 8, id(record.source_ids): 2}.get(id(part), width)
            sizes[part.file] = part.count * wide
    problems = [file_problem(path / name, size) for name, size in sizes.items()]
    return [problem for problem in problems if problem]


def file_problem(file: Path, size: int | None = None) -> str | None:
    """Return what is wrong with one file, opened by nobody yet; links are not followed.

    Args:
        file: the file.
        size: its bytes, if they are known.
    """
    try:
        status = file.lstat()
    except FileNotFoundError:
        return f"{file.name} is missing"
    except OSError as error:
        return f"{file.name} cannot be looked at: {error.strerror}"
    if not stat.S_ISREG(status.st_mode):
        return f"{file.name} is {kind_of_file(status.st_mode)}, not a file"
    if size is not None and status.st_size != size:
        return f"{file.name} has {status.st_size:,} bytes instead of {size:,}"
    return None


def kind_of_file(mode: int) -> str:
    """Return a word for what an entry of a folder is, with its article."""
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe",
             stat.S_IFSOCK: "a socket", stat.S_IFREG: "a file"}  # fmt: skip
    return kinds.get(stat.S_IFMT(mode), "a device")


def offset_problem(starts: np.ndarray, record: SplitRecord) -> str | None:
    """Return what is wrong with document offsets: they begin at 0, rise, and stay inside."""
    if not len(starts):
        return None
    if starts[0] != 0:
        return f"the first document begins at {starts[0]:,}, not at 0"
    # Two apart at least: a document is one token, and then there is the separator.
    falling = np.flatnonzero(starts[1:] < starts[:-1] + np.uint64(2))
    if len(falling):
        return f"document {int(falling[0]) + 1:,} does not begin after the one before it"
    if starts[-1] >= record.tokens:
        return f"the last document begins at {starts[-1]:,}, after the end of the tokens"
    return None


def tokenizer_problems(tokenizer: Tokenizer, claimed: TokenizerRecord) -> list[str]:
    """Return where the tokenizer beside a manifest is not the one that it describes."""
    problems = []
    if tokenizer.fingerprint != claimed.fingerprint:
        problems.append(
            f"{TOKENIZER_FILE} is not the tokenizer that the tokens were made with "
            f"(fingerprint {tokenizer.fingerprint[:12]}… instead of {claimed.fingerprint[:12]}…)"
        )
    if claimed.kind != tokenizer.kind:
        kind = printable(claimed.kind, keep="")
        problems.append(f"the tokenizer is of the kind “{tokenizer.kind}”, not “{kind}”")
    if claimed.vocab_size != tokenizer.vocab_size:
        problems.append(
            f"the tokenizer knows {tokenizer.vocab_size:,} tokens, not {claimed.vocab_size:,}"
        )
    if claimed.end_of_text != tokenizer.end_of_text:
        problems.append(
            f"the tokenizer separates documents with token {tokenizer.end_of_text:,}, not "
            f"{claimed.end_of_text:,}"
        )
    return problems


def _refuse(path: Path, problems: list[str]) -> None:
    if problems:
        raise damaged(path, problems[0])
