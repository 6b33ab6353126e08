"""Opens files for reading bytes, decompressed as their names say; nothing is lost or endless.

Python's own readers take what follows the first stream of a `.bz2` or `.xz` file for rubbish and
drop it without a word, a damaged second stream included. Here a file is read to its last byte or
refused, and refused too where it unpacks to far more than text ever does.
"""

from __future__ import annotations

import bz2
import io
import lzma
import os
import stat
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pyarrow

from coterie.data.kinds import Packing, kind_of
from coterie.foundation.errors import DataError

# Prose shrinks to a third, logs to a hundredth; a file of one letter to a millionth.
MAX_EXPANSION = 200
FREE_EXPANSION = 1 << 24  # unpacked bytes that are never too many
_XZ_MEMORY = 1 << 29  # `xz -9` needs 2^26
_CHUNK = 1 << 16

DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, pyarrow.ArrowException)


class Readable(Protocol):
    """What a file is here: it gives bytes until there are none left."""

    def read(self, size: int, /) -> bytes: ...
    def close(self) -> None: ...


def open_bytes(path: Path, max_expansion: int = MAX_EXPANSION) -> Readable:
    """Open a regular file for reading bytes, decompressed if its endings say that it is packed.

    Args:
        path: the file.
        max_expansion: how many times its size it may unpack to; see `MAX_EXPANSION`.

    Raises:
        DataError: it cannot be opened. `read` raises one where the file is damaged or unpacks to
            too much.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would block for ever
            raise DataError(f"{path} is not a regular file.")
        file: Readable = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by its owner
    except OSError as error:
        raise unreadable(path, error) from error
    packings = kind_of(path).packings
    if not packings:
        return _Plain(path, file)
    size = os.path.getsize(path)
    for packing in packings:
        file = _Bounded(path, _UNPACKERS[packing](file), size, max_expansion)
    return file


def unreadable(path: Path | str, error: OSError) -> DataError:
    """Return the error that says why the system does not let a file or folder be read."""
    return DataError(f"{path} cannot be read: {error.strerror or error}.")


class _Plain:
    """A file as it is, its failures in words."""

    def __init__(self, path: Path, file: Readable) -> None:
        self._path, self._file = path, file
        self.close = file.close

    def read(self, size: int, /) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            raise unreadable(self._path, error) from error


class _Bounded:
    """An unpacked stream that refuses to go on for ever, its failures in words."""

    def __init__(self, path: Path, file: Readable, packed: int, max_expansion: int) -> None:
        self._path, self._file, self._packed = path, file, packed
        self._most = max(FREE_EXPANSION, packed * max_expansion)
        self._times = max_expansion
        self._count = 0
        self.close = file.close

    def read(self, size: int, /) -> bytes:
        try:
            block = self._file.read(size)
        except DAMAGE as error:
            raise DataError(
                f"{self._path} is damaged and cannot be decompressed: {error} (after "
                f"{self._count:,} good bytes)."
            ) from error
        self._count += len(block)
        if self._count > self._most:
            raise DataError(
                f"{self._path} ({self._packed:,} bytes) unpacks to more than {self._most:,} bytes, "
                f"over {self._times:,} times its size: hardly text.",
                hint="If it is meant, allow more: --max-expansion 100000 "
                "(data.max_expansion=100000).",
            )
        return block


class _Gzip:
    """zlib's decompressor with the interface of those for bzip2 and xz."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)
        self._held = b""
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        block = self._inner.decompress(self._held + data, max_length)
        self._held = self._inner.unconsumed_tail
        self.needs_input = not self._held and len(block) < max_length
        return block


class _Streams:
    """The content of one stream after another, to the last byte of the file.

    Args:
        file: the packed bytes.
        start: makes a decompressor for the next stream.
        padded: whether zeros may follow a stream.
    """

    def __init__(self, file: Readable, start: Callable[[], Any], *, padded: bool) -> None:
        self._file, self._start, self._padded = file, start, padded
        self._decoder = start()
        self._empty = False
        self._rest: bytes | None = None  # before the first reading
        self.close = file.close

    def read(self, size: int, /) -> bytes:
        if self._rest is None:
            self._rest = self._file.read(_CHUNK)
            self._empty = not self._rest
        while not self._empty:
            if self._decoder.eof and not self._next():
                break
            data = b""
            if self._decoder.needs_input:
                data = self._rest or self._file.read(_CHUNK)
                self._rest = b""
                if not data:
                    raise EOFError("it ends in the middle")
            if block := self._decoder.decompress(data, size):
                return block
        return b""

    def _next(self) -> bool:
        """Begin the stream that follows, if one does."""
        rest = self._decoder.unused_data + (self._rest or b"")
        while True:
            rest = rest.lstrip(b"\0") if self._padded else rest
            if rest:
                self._decoder, self._rest = self._start(), rest
                return True
            rest = self._file.read(_CHUNK)
            if not rest:
                return False


def _open_gzip(file: Readable) -> Readable:
    return _Streams(file, _Gzip, padded=True)


def _open_xz(file: Readable) -> Readable:
    def start() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(memlimit=_XZ_MEMORY)

    return _Streams(file, start, padded=True)


def _open_bzip2(file: Readable) -> Readable:
    return _Streams(file, bz2.BZ2Decompressor, padded=False)


def _open_zstandard(file: Readable) -> Readable:
    """Python 3.11 has no Zstandard of its own; Arrow's stream reads to the last byte."""
    return pyarrow.CompressedInputStream(_File(file), "zstd")


class _File(io.RawIOBase):
    """A stream as Arrow wants it."""

    def __init__(self, inner: Readable) -> None:
        super().__init__()
        self._inner = inner

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        return self._inner.read(_CHUNK if size < 0 else size)

    def close(self) -> None:
        if not self.closed:
            self._inner.close()
        super().close()


_UNPACKERS: dict[Packing, Callable[[Readable], Readable]] = {
    "gzip": _open_gzip,
    "xz": _open_xz,
    "bzip2": _open_bzip2,
    "zstandard": _open_zstandard,
}
