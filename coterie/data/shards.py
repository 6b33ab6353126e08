"""A store's shards held open while they are read: what happens to them is noticed, not suffered.

A file that is cut short under a memory map kills the process that reads there (SIGBUS). Batches are
therefore read with `preadv`, which comes back short instead. Removing or replacing a file does not
touch what is open. Writing into it changes its times, and then its content is hashed again.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from pathlib import Path

import numpy as np

from coterie.data.manifest import FileRecord, damaged

_CHUNK = 1 << 22
SUPPORTED = hasattr(os, "preadv")  # elsewhere a mapped file cannot be cut short


class ShardFile:
    """One shard, open for reading."""

    def __init__(self, store: Path, record: FileRecord, dtype: np.dtype) -> None:
        self._store = store
        self._record = record
        self._dtype = dtype
        try:
            self._file = os.open(store / record.file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise damaged(store, f"{record.file} cannot be read: {error.strerror}") from error
        weakref.finalize(self, os.close, self._file)
        self._verified: tuple[int, int, int] | None = None

    def read_into(self, out: np.ndarray, place: int) -> None:
        """Read tokens from `place` on into `out` [T], of the shard's own type.

        Raises:
            StoreError: the file has become shorter.
        """
        view, offset = out.data.cast("B"), place * self._dtype.itemsize
        while len(view):
            count = os.preadv(self._file, [view], offset)
            if count == 0:
                raise self._short(os.fstat(self._file).st_size)
            view, offset = view[count:], offset + count

    def check(self) -> None:
        """Make sure that the content is what the manifest says; unless touched, it is read once.

        Raises:
            StoreError: it is not.
        """
        status = os.fstat(self._file)
        if status.st_size != self._record.count * self._dtype.itemsize:
            raise self._short(status.st_size)
        now = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if now == self._verified:
            return
        digest, offset = hashlib.sha256(), 0
        while chunk := os.pread(self._file, _CHUNK, offset):
            digest.update(chunk)
            offset += len(chunk)
        if digest.hexdigest() != self._record.sha256:
            raise damaged(
                self._store, f"{self._record.file} does not have its checksum: its content changed"
            )
        self._verified = now

    def _short(self, size: int) -> Exception:
        wanted = self._record.count * self._dtype.itemsize
        return damaged(self._store, f"{self._record.file} has {size:,} bytes instead of {wanted:,}")
