"""The token store: memory-mapped shards, document boundaries and the tokenizer, in one folder.

```
STORE/manifest.json            what everything is, with checksums; written last
STORE/tokenizer.json           the tokenizer, complete
STORE/train-00000.bin …        token numbers, little-endian uint16 or uint32 by vocabulary
STORE/train-documents.bin      where each document begins, little-endian uint64
STORE/valid-…                  the same for the part held out
```
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from coterie.data.manifest import FILE_NAME, Manifest, SplitRecord, read_manifest
from coterie.data.tokens import TokenArray
from coterie.foundation.errors import StoreError, TokenizerError, nearest
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.saving import load_tokenizer

OFFSETS_DTYPE = "<u8"


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

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides the tokens."""
        return self.manifest.fingerprint

    def tokens(self, split: str) -> TokenArray:
        """Return all tokens of `train` or `valid`, memory-mapped.

        Raises:
            StoreError: there is no such split.
        """
        if split not in self._arrays:
            record = self._record(split)
            dtype = np.dtype(self.manifest.dtype).newbyteorder("<")
            shards = [np.memmap(self.path / s.file, dtype=dtype, mode="r") for s in record.shards]
            self._arrays[split] = TokenArray(shards, self.manifest.shard_tokens)
        return self._arrays[split]

    def document_starts(self, split: str) -> np.ndarray:
        """Return where each document of a split begins, uint64 [documents], memory-mapped.

        Document i reaches to where the next one begins; its last token is then the separator.
        """
        offsets = self._record(split).offsets
        if offsets is None:
            return np.empty(0, dtype=OFFSETS_DTYPE)
        return np.memmap(self.path / offsets.file, dtype=OFFSETS_DTYPE, mode="r")

    def characters_per_token(self, split: str) -> float | None:
        """Return the mean length of a token's text; `None` for an empty split."""
        record = self._record(split)
        return record.characters / record.tokens if record.tokens else None

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
    return (Path(path) / FILE_NAME).is_file() and (Path(path) / "tokenizer.json").is_file()


def open_store(path: Path | str, tokenizer: Tokenizer | None = None) -> Store:
    """Open a store; its bytes are not read, so damage inside shards is left to `verify_store`.

    Args:
        path: the folder.
        tokenizer: what the store must have been made with, if that matters.

    Raises:
        StoreError: there is no store, it is incomplete or damaged, or another tokenizer made it.
    """
    path = Path(path)
    manifest = read_manifest(path)
    try:
        own = load_tokenizer(path)
    except TokenizerError as error:
        raise StoreError(f"The store {path} is damaged: {error.message}", hint=_repair(path)) from (
            error
        )
    if own.fingerprint != manifest.tokenizer.fingerprint:
        raise StoreError(
            f"The store {path} is damaged: its tokenizer.json is not the one its tokens were "
            "made with.",
            hint=_repair(path),
        )
    problems = size_problems(path, manifest)
    if problems:
        raise StoreError(f"The store {path} is damaged: {problems[0]}.", hint=_repair(path))
    if tokenizer is not None and tokenizer.fingerprint != own.fingerprint:
        raise StoreError(
            f"The store {path} was made with another tokenizer: {own!r} there, "
            f"{tokenizer!r} was asked for.",
            hint="Prepare the text again with the tokenizer that you want, or use the store's.",
        )
    return Store(path, manifest, own)


def size_problems(path: Path, manifest: Manifest) -> list[str]:
    """Return what is wrong with the presence and the sizes of a store's binary files."""
    width = np.dtype(manifest.dtype).itemsize
    problems = []
    for record in manifest.splits.values():
        files = [(shard, width) for shard in record.shards]
        files += [(record.offsets, 8)] if record.offsets else []
        for part, size in files:
            file = path / part.file
            if not file.is_file():
                problems.append(f"{part.file} is missing")
            elif file.stat().st_size != part.count * size:
                problems.append(
                    f"{part.file} has {file.stat().st_size:,} bytes instead of "
                    f"{part.count * size:,}"
                )
    return problems


def _repair(path: Path) -> str:
    return f"coterie data verify {path} lists every problem; then prepare it again."
