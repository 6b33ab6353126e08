"""Text files of any size, plain or compressed, in pieces; what is not UTF-8 text is refused.

Line ends become “\\n” and a byte order mark is dropped, as Python does when it reads text.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from coterie.data.unpack import MAX_EXPANSION, open_bytes
from coterie.foundation.errors import DataError

PIECE = 1 << 22  # bytes read at once: a piece of text has at most as many characters
_PROBE = 1 << 13  # how many first bytes tell whether a file is binary
_WIDE_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_text(
    path: Path, max_expansion: int = MAX_EXPANSION, *, rows: bool = False
) -> Iterator[str]:
    """Yield a text file in pieces of at most `PIECE` characters.

    Args:
        path: the file; see `unpack` for those that are compressed.
        max_expansion: how many times its size it may unpack to.
        rows: whether the reader looks at each row by itself. Then a byte that is not UTF-8 comes
            as a surrogate (Python's `surrogateescape`), and some zero bytes are passed on.

    Raises:
        DataError: the file is empty, binary, damaged or not UTF-8; the message names the place.
    """
    decoder = _Utf8(path, rows)
    with closing(open_bytes(path, max_expansion)) as file:
        while block := file.read(PIECE):
            piece = decoder.decode(block)
            if piece:
                yield piece
    rest = decoder.finish()
    if rest:
        yield rest
    if not decoder.consumed:
        raise DataError(f"{path} is empty.")


class _Utf8:
    """Decodes bytes as they come and knows where in the file it is."""

    def __init__(self, path: Path, rows: bool) -> None:
        self._path, self._rows = path, rows
        self._decoder: io.IncrementalNewlineDecoder | None = None
        self._before = b""
        self._lines = 1
        self.consumed = 0

    def decode(self, block: bytes) -> str:
        """Return the text of the next bytes."""
        if self.consumed < _PROBE:
            refuse_binary(self._path, block[:_PROBE], self.consumed, rows=self._rows)
        self._lines += self._before.count(b"\n")
        self._before = block
        if self._decoder is None:
            if block.isascii() and b"\r" not in block:  # as most files of code are to their end
                self.consumed += len(block)
                return block.decode("ascii")
            codec = codecs.getincrementaldecoder("utf-8" if self.consumed else "utf-8-sig")
            decoder = codec("surrogateescape" if self._rows else "strict")
            self._decoder = io.IncrementalNewlineDecoder(decoder, translate=True)
        self.consumed += len(block)
        return self._guarded(self._decoder, block, final=False)

    def finish(self) -> str:
        """Return what is left at the end of the file."""
        if self._decoder is None:
            return ""
        self._lines += self._before.count(b"\n")
        return self._guarded(self._decoder, b"", final=True)

    def _guarded(self, decoder: io.IncrementalNewlineDecoder, block: bytes, *, final: bool) -> str:
        try:
            return decoder.decode(block, final=final)
        except UnicodeDecodeError as error:
            # What the decoder held back from earlier blocks stands at the start of its input.
            place = self.consumed - len(error.object) + error.start
            line = self._lines + error.object[: error.start].count(b"\n")
            raise DataError(
                f"{self._path} is not UTF-8: byte 0x{error.object[error.start]:02X} at position "
                f"{place:,} (line {line:,}).",
                hint="Convert it first, for example: iconv -f latin1 -t utf-8 FILE > NEW",
            ) from error


def refuse_binary(path: Path, first: bytes, begun: int = 0, *, rows: bool = False) -> None:
    """Raise a `DataError` if a file's first bytes, from position `begun` on, are no UTF-8 text.

    With `rows` a few zero bytes are left for the reader of the rows to find.
    """
    for mark, name in _WIDE_MARKS.items():
        if not begun and first.startswith(mark):
            raise DataError(
                f"{path} is {name}, not UTF-8.",
                hint=f"Convert it first: iconv -f {name} -t utf-8 FILE > NEW",
            )
    if first.count(0) > (len(first) // 10 if rows else 0):
        place = begun + first.index(0)
        raise DataError(
            f"{path} is a binary file, not text (a zero byte at position {place:,}).",
            hint="Give text, JSONL, CSV or Parquet files.",
        )
