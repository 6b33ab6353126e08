"""The header of a GGUF file, read with every length checked against the rest of the file.

Layout (the format's own description, version 3): the letters GGUF, a version, the number of tensors
and of values, the values by name, then name, shape, type and offset of each tensor. All numbers are
little-endian. A damaged length can neither run past the end nor fill the memory.
"""

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coterie.exchange.imported import ExchangeError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
_SCALARS = "BbHhIif?"  # of the format's types 0 … 7
_FLOAT32, _STRING, _ARRAY = 6, 8, 9
_WIDE = {10: "Q", 11: "q", 12: "d"}
_MOST_DIMENSIONS = 4
# Far more than any published file has; a file that claims more is damaged.
_MOST_VALUES, _MOST_TENSORS, _MOST_ITEMS, _LONGEST = 1 << 16, 1 << 20, 1 << 24, 1 << 26
_DEEPEST = 4  # nested arrays


@dataclass(frozen=True)
class TensorPlace:
    """A tensor's shape, type and place.

    Attributes:
        shape: as in torch; the file has it reversed.
        kind: the number of its type.
        offset: in bytes from the beginning of the data.
    """

    shape: tuple[int, ...]
    kind: int
    offset: int


@dataclass(frozen=True)
class Header:
    """What precedes the data of the tensors.

    Attributes:
        values: by name; arrays are lists.
        tensors: by name.
        end: its length in bytes.
    """

    values: dict[str, Any]
    tensors: dict[str, TensorPlace]
    end: int


def read_header(path: Path) -> Header:
    """Read the header of a file.

    Raises:
        ExchangeError: it is no GGUF file, of a version or byte order that is not read here, cut
            off, or damaged.
    """
    with path.open("rb") as file:
        start = file.read(8)
        _check_start(path, start)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                return _Cursor(content, len(start)).header()
            except _DamageError as error:
                raise ExchangeError(
                    f"{path} is damaged: {error}.",
                    hint="Download or copy the file again; it may have been cut off.",
                ) from error


def _check_start(path: Path, start: bytes) -> None:
    if start[:4] == MAGIC[::-1]:
        raise ExchangeError(f"{path} is in big-endian order; only little-endian files are read.")
    if start[:4] != MAGIC:
        raise ExchangeError(
            f"{path} is no GGUF file: it does not begin with the letters GGUF.",
            hint="A folder with config.json and safetensors is imported by the folder's path.",
        )
    version = int.from_bytes(start[4:], "little")
    if version & 0xFFFF == 0:
        raise ExchangeError(f"{path} is in big-endian order; only little-endian files are read.")
    if version not in VERSIONS or len(start) < 8:
        raise ExchangeError(
            f"{path} is a GGUF file of version {version}; versions 2 and 3 are read.",
            hint="Convert it with a newer llama.cpp, or ask for a newer file.",
        )


class _DamageError(Exception):
    """What is wrong with a header."""


class _Cursor:
    def __init__(self, content: mmap.mmap, at: int) -> None:
        self._content = content
        self._at = at

    def header(self) -> Header:
        tensors, values = self._number("Q"), self._number("Q")
        self._bound(values, _MOST_VALUES, "values")
        self._bound(tensors, _MOST_TENSORS, "tensors")
        self._expect(values, 12 + 1, "values")
        found: dict[str, Any] = {}
        for _ in range(values):
            name = self._string()
            if name in found:
                raise _DamageError(f"the value {name} is there twice")
            found[name] = self._value(self._number("I"))
        self._expect(tensors, 8 + 4 + 4 + 8, "tensors")
        places: dict[str, TensorPlace] = {}
        for _ in range(tensors):
            name = self._string()
            if name in places:
                raise _DamageError(f"the tensor {name} is there twice")
            places[name] = self._place(name)
        return Header(found, places, self._at)

    def _place(self, name: str) -> TensorPlace:
        dimensions = self._number("I")
        if not 1 <= dimensions <= _MOST_DIMENSIONS:
            raise _DamageError(f"the tensor {name} has {dimensions} dimensions")
        shape = self._numbers("Q", dimensions)
        return TensorPlace(tuple(reversed(shape)), self._number("I"), self._number("Q"))

    def _value(self, kind: int, depth: int = 0) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._array(depth + 1)
        value = self._number(self._letter(kind))
        # 1e-5 is stored as 9.99999974…e-06; the shortest decimal gives 1e-5 again.
        return float(str(np.float32(value))) if kind == _FLOAT32 else value

    def _array(self, depth: int) -> list[Any]:
        if depth > _DEEPEST:
            raise _DamageError(f"there are arrays in arrays, more than {_DEEPEST} deep")
        kind, length = self._number("I"), self._number("Q")
        self._bound(length, _MOST_ITEMS, "items of an array")
        if kind in (_STRING, _ARRAY):
            self._expect(length, 8 if kind == _STRING else 12, "items of an array")
            return [self._value(kind, depth) for _ in range(length)]
        return list(self._numbers(self._letter(kind), length))

    def _letter(self, kind: int) -> str:
        if kind < len(_SCALARS):
            return _SCALARS[kind]
        if kind not in _WIDE:
            raise _DamageError(f"there is a value of the unknown kind {kind}")
        return _WIDE[kind]

    def _string(self) -> str:
        length = self._number("Q")
        self._bound(length, _LONGEST, "letters")
        self._expect(length, 1, "letters")
        raw = self._content[self._at : self._at + length]
        self._at += length
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _DamageError(f"there is a text that is not UTF-8 ({raw[:24]!r})") from error

    def _number(self, letter: str) -> Any:
        return self._numbers(letter, 1)[0]

    def _numbers(self, letter: str, count: int) -> tuple[Any, ...]:
        size = struct.calcsize(letter)
        self._expect(count, size, "numbers")
        found = struct.unpack_from(f"<{count}{letter}", self._content, self._at)
        self._at += count * size
        return found

    def _bound(self, count: int, most: int, what: str) -> None:
        if count > most:
            raise _DamageError(f"it claims to hold {count:,} {what}; no file has over {most:,}")

    def _expect(self, count: int, size: int, what: str) -> None:
        """Raise unless `count` things of at least `size` bytes can still follow."""
        left = len(self._content) - self._at
        if count * size > left:
            raise _DamageError(f"it ends where {count:,} {what} should follow")
