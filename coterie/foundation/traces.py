"""Traces: what a model did to each token of a text, in a file that opens without the model.

A trace begins with `MAGIC` and goes on in frames, each written whole and flushed, so that a killed
recorder leaves all frames but perhaps the last. A frame is a head of 24 bytes (kind, bytes of its
content, tokens in it, CRC-32 of the content, CRC-32 of what stands before in the head) and its
content:

- `HEAD`, the first: JSON of `TraceHeader`.
- `WORD`: JSON, the texts of tokens that later blocks name.
- `BLOK`: the texts that its tokens added, as JSON after four bytes with its length; then one record
  of fixed size for each token (`record_type`).
- `ENDS`: JSON, why the text ended. A trace without it was cut short.

A head says how long its content is, so that a reader passes over what it does not want.
"""

import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from coterie.foundation.errors import UserError
from coterie.foundation.records import parse_json, validated

MAGIC = b"COTERIE TRACE 1\n"
NO_EXPERT = 0xFFFF
ATTENDED = 3
"""Keys that are kept of what a token attends to, those of most weight."""
_FRAME = struct.Struct("<4sIII")
_CRC = struct.Struct("<I")
_TOKENS_AT_ONCE = 16
_MOST_BYTES = 1 << 28  # of one frame


class TraceHeader(BaseModel):
    """What was watched.

    Attributes:
        model: a name of it.
        step: optimizer steps it was trained for.
        experts: of each layer, from the bottom up; 0: a dense layer.
        experts_per_token: routed experts that a token goes to, at most.
        candidates: next tokens that are kept, the likeliest.
        lens: the same after each layer; 0: none.
        masked, forced: experts that were kept from all tokens, or given all, as “layer:expert”.
        sampling: the settings it was drawn with, for whoever wants to know.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    model: str = ""
    step: int = 0
    vocabulary: int = Field(default=0, ge=0)
    experts: tuple[int, ...] = Field(max_length=4096)
    experts_per_token: int = Field(ge=0, lt=NO_EXPERT)
    candidates: int = Field(default=5, ge=1, le=100)
    lens: int = Field(default=3, ge=0, le=100)
    masked: tuple[str, ...] = ()
    forced: tuple[str, ...] = ()
    sampling: dict[str, Any] = Field(default_factory=dict)

    def record_type(self) -> np.dtype:
        """Return the layout of one token's record; unused places hold NaN or `NO_EXPERT`.

        `surprise` (−log p of the token, in nats), `entropy` (of the model's distribution, in nats),
        `allowed` (tokens left after constraints and truncation) and the candidates are of the place
        before the token: what it was chosen from. All else is what the model made of the token
        itself once it was `read`; the last token of a text never is.
        """
        layers, most = len(self.experts), max(self.experts, default=0)
        if most >= NO_EXPERT:
            raise UserError(f"A layer of {most:,} experts cannot be recorded.")
        several = (layers, self.experts_per_token)
        return np.dtype([
            ("token", "<u4"), ("position", "<u4"), ("generated", "?"), ("read", "?"),
            ("surprise", "<f4"), ("entropy", "<f4"), ("allowed", "<u4"),
            ("before", "<u4", self.candidates), ("before_p", "<f4", self.candidates),
            ("after", "<u4", self.candidates), ("after_p", "<f4", self.candidates),
            ("experts", "<u2", several), ("weights", "<f4", several),
            ("scores", "<f4", (layers, most)), ("shares", "<f4", (layers, most)),
            ("margin", "<f4", layers), ("residual", "<f4", layers),
            ("attention", "<f4", layers), ("feedforward", "<f4", layers),
            ("attention_entropy", "<f4", layers),
            ("attended", "<u4", (layers, ATTENDED)), ("attended_p", "<f4", (layers, ATTENDED)),
            ("lens", "<u4", (layers, self.lens)), ("lens_p", "<f4", (layers, self.lens)),
        ])  # fmt: skip


@dataclass(frozen=True)
class Trace:
    """What was recorded of one text, or of a part of it.

    Attributes:
        header: what was watched.
        records: one for each token, of `header.record_type()`.
        texts: what each token added to the text; empty while a character is unfinished.
        words: the texts of all tokens that records name.
        ending: why the text ended; None: the recorder was stopped before, or goes on.
    """

    header: TraceHeader
    records: np.ndarray
    texts: list[str]
    words: dict[int, str] = field(default_factory=dict)
    ending: str | None = None

    def word(self, token: int) -> str:
        return self.words.get(int(token), f"#{token}")


class TraceWriter:
    """Writes a trace as it happens; a context manager.

    Args:
        path: of the file, which must not exist, so that no trace is lost to another.

    Raises:
        UserError: there is such a file, or it cannot be written.
    """

    def __init__(self, path: Path | str, header: TraceHeader) -> None:
        try:
            self._file: IO[bytes] = open(path, "xb")  # noqa: SIM115 - held until `__exit__`
        except FileExistsError as error:
            raise UserError(f"There is a {path} already; a trace overwrites nothing.") from error
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}.") from error
        self._type = header.record_type()
        self._known: set[int] = set()
        self._records: list[np.ndarray] = []
        self._texts: list[str] = []
        self._words: dict[int, str] = {}
        self._file.write(MAGIC)
        self._frame(b"HEAD", header.model_dump_json().encode())

    def add(self, records: np.ndarray, texts: Sequence[str], words: Mapping[int, str]) -> None:
        """Take in tokens; they are in the file once there are enough of them for a block."""
        self._records.append(records)
        self._texts += texts
        self._words |= {k: v for k, v in words.items() if k not in self._known}
        if len(self._texts) >= _TOKENS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Write what was taken in so far."""
        if self._words:
            self._frame(b"WORD", _json({str(key): word for key, word in self._words.items()}))
            self._known |= self._words.keys()
            self._words = {}
        if self._texts:
            texts, records = _json(self._texts), np.concatenate(self._records)
            content = struct.pack("<I", len(texts)) + texts + records.astype(self._type).tobytes()
            self._frame(b"BLOK", content, len(self._texts))
            self._records, self._texts = [], []

    def end(self, reason: str) -> None:
        """Write what is left, and why the text ended."""
        self.flush()
        self._frame(b"ENDS", _json({"ending": reason}))

    def _frame(self, kind: bytes, content: bytes, tokens: int = 0) -> None:
        head = _FRAME.pack(kind, len(content), tokens, zlib.crc32(content))
        self._file.write(head + _CRC.pack(zlib.crc32(head)) + content)
        self._file.flush()

    def __enter__(self) -> "TraceWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.flush()
        self._file.close()


def is_trace(path: Path | str) -> bool:
    """Return whether a file begins as a trace does."""
    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def read_trace(path: Path | str, start: int = 0, stop: int | None = None) -> Trace:
    """Read a trace, or of its tokens the blocks that hold those from `start` to before `stop`.

    A frame that the file ends within was never finished, and is left out.

    Raises:
        UserError: it is no trace or of another version, or it is damaged; the message says where.
    """
    header, texts, words, ending = None, [], {}, None
    blocks: list[np.ndarray] = []
    try:
        with open(path, "rb") as file:
            _check_magic(file, path)
            for kind, tokens, content in _frames(file, path, start, stop):
                where = f"The trace {path}, {kind.decode()} after {tokens:,} tokens,"
                if kind == b"HEAD":
                    header = validated(TraceHeader, parse_json(content, where), where)
                elif header is None:
                    raise UserError(f"The trace {path} is damaged: it does not say what it is of.")
                elif kind == b"WORD":
                    words |= {
                        int(key): str(word) for key, word in parse_json(content, where).items()
                    }
                elif kind == b"BLOK":
                    block, added = _block(content, header.record_type(), where)
                    blocks.append(block)
                    texts += added
                elif kind == b"ENDS":
                    ending = str(parse_json(content, where)["ending"])
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    if header is None:
        raise UserError(f"The trace {path} ends before it says what it is of.")
    records = np.concatenate([np.empty(0, header.record_type()), *blocks])
    return Trace(header, records, texts, words, ending)


def _check_magic(file: IO[bytes], path: Path | str) -> None:
    found = file.read(len(MAGIC))
    if found == MAGIC:
        return
    if found.startswith(b"COTERIE TRACE "):
        raise UserError(
            f"{path} is a trace of another version ({found[14:].decode('ascii', 'replace').strip()}"
            "); this program reads version 1.",
            hint="Record it again, or read it with the version that wrote it.",
        )
    raise UserError(f"{path} is no trace.", hint='Record one: coterie visualise RUN "…" --record F')


def _frames(
    file: IO[bytes], path: Path | str, start: int, stop: int | None
) -> Iterator[tuple[bytes, int, bytes]]:
    """Yield of each wanted frame its kind, the tokens before it, and its content.

    Raises:
        UserError: a frame is damaged.
    """
    size, before = os.fstat(file.fileno()).st_size, 0
    while True:
        at = file.tell()
        head = file.read(_FRAME.size + _CRC.size)
        if len(head) < _FRAME.size + _CRC.size:
            return
        kind, length, tokens, checksum = _FRAME.unpack(head[: _FRAME.size])
        damaged = UserError(
            f"The trace {path} is damaged at byte {at:,}, after {before:,} tokens: a checksum does "
            "not match."
        )
        if zlib.crc32(head[: _FRAME.size]) != _CRC.unpack(head[_FRAME.size :])[0]:
            raise damaged
        if at + len(head) + length > size:
            return
        if length > _MOST_BYTES:
            raise UserError(f"The trace {path} has {length:,} bytes at byte {at:,}: too many.")
        if kind == b"BLOK" and (before + tokens <= start or (stop is not None and before >= stop)):
            file.seek(length, os.SEEK_CUR)
        else:
            content = file.read(length)
            if zlib.crc32(content) != checksum:
                raise damaged
            yield kind, before, content
        before += tokens


def _block(content: bytes, record: np.dtype, where: str) -> tuple[np.ndarray, list[str]]:
    length = int.from_bytes(content[:4], "little")
    texts, rest = parse_json(content[4 : 4 + length], where), content[4 + length :]
    if not isinstance(texts, list) or len(rest) != len(texts) * record.itemsize:
        raise UserError(f"{where} is damaged: its records are not as many as its texts.")
    return np.frombuffer(rest, record), [str(text) for text in texts]


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()  # ASCII: lone surrogates pass too
