"""Text files of any size, plain or compressed, in pieces; what is not UTF-8 text is refused.

Line ends become “\\n” and a byte order mark is dropped, as Python does when it reads text.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow

from coterie.foundation.errors import DataError

PIECE = 1 << 22  # bytes read at once: a piece of text has at most as many characters
_PROBE = 1 << 13  # how many first bytes tell whether a file is binary
_WIDE_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def _open_zstandard(path: Path) -> Any:
    """Python 3.11 has no Zstandard of its own; Arrow's stream reads like a file."""
    return pyarrow.input_stream(str(path), compression="zstd")


_OPENERS: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".xz": lzma.open,
    ".bz2": bz2.open,
    ".zst": _open_zstandard,
}
COMPRESSED = tuple(_OPENERS)


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading bytes, decompressed if its ending says that it is compressed.

    Raises:
        DataError: it cannot be opened.
    """
    opener = _OPENERS.get(path.suffix.lower())
    try:
        return opener(path) if opener else open(path, "rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def read_text(path: Path) -> Iterator[str]:
    """Yield a text file in pieces of at most `PIECE` characters.

    Raises:
        DataError: the file is empty, binary, damaged or not UTF-8; the message names the place.
    """
    decoder = _Utf8(path)
    with open_bytes(path) as file:
        for block in _blocks(path, file):
            piece = decoder.decode(block)
            if piece:
                yield piece
    rest = decoder.finish()
    if rest:
        yield rest
    if not decoder.consumed:
        raise DataError(f"{path} is empty.")


def _blocks(path: Path, file: IO[bytes]) -> Iterator[bytes]:
    """Yield a file's bytes, turning errors of decompression into words."""
    while True:
        try:
            block = file.read(PIECE)
        except (OSError, EOFError, zlib.error, lzma.LZMAError, pyarrow.ArrowException) as error:
            raise DataError(f"{path} is damaged and cannot be decompressed: {error}.") from error
        if not block:
            return
        yield block


class _Utf8:
    """Decodes bytes as they come and knows where in the file it is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        decoder = codecs.getincrementaldecoder("utf-8-sig")("strict")
        self._decoder = io.IncrementalNewlineDecoder(decoder, translate=True)
        self._lines = 1
        self.consumed = 0

    def decode(self, block: bytes) -> str:
        """Return the text of the next bytes."""
        if not self.consumed:
            refuse_binary(self._path, block[:_PROBE])
        self.consumed += len(block)
        return self._guarded(block, final=False)

    def finish(self) -> str:
        """Return what is left at the end of the file."""
        return self._guarded(b"", final=True)

    def _guarded(self, block: bytes, *, final: bool) -> str:
        try:
            text = self._decoder.decode(block, final=final)
        except UnicodeDecodeError as error:
            # What the decoder held back from earlier blocks stands at the start of its input.
            place = self.consumed - len(error.object) + error.start
            line = self._lines + error.object[: error.start].count(b"\n")
            raise DataError(
                f"{self._path} is not UTF-8: byte 0x{error.object[error.start]:02X} at position "
                f"{place:,} (line {line:,}).",
                hint="Convert it first, for example: iconv -f latin1 -t utf-8 FILE > NEW",
            ) from error
        self._lines += block.count(b"\n")
        return text


def refuse_binary(path: Path, first: bytes) -> None:
    """Raise a `DataError` if a file's first bytes are not those of UTF-8 text."""
    for mark, name in _WIDE_MARKS.items():
        if first.startswith(mark):
            raise DataError(
                f"{path} is {name}, not UTF-8.",
                hint=f"Convert it first: iconv -f {name} -t utf-8 FILE > NEW",
            )
    if b"\0" in first:
        raise DataError(
            f"{path} is a binary file, not text (a zero byte at position {first.index(0)}).",
            hint="Give text, JSONL, CSV or Parquet files.",
        )
