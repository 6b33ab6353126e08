"""Safetensors files: tensors written from where they lie, and read without being copied.

Ours begin every tensor whose size is a multiple of 64 bytes at such a place, which is where torch
puts memory of its own: products then round alike whether weights were mapped or copied. The format
allows no gaps, so the few others come last.

Several processes write a folder of such files, each with the parts it holds; where a part begins in
its tensor is said in the file's header, under the name that torch's distributed checkpoints use.
"""

import contextlib
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, load_file
from torch import Tensor

from coterie.foundation.errors import CheckpointError
from coterie.foundation.migration import tensor_name
from coterie.foundation.printable import printable

ALIGNMENT = 64
"""Bytes: a cache line, and what torch's own memory begins with."""
# What the library and torch raise on headers that are malformed, too large or of unknown types.
_READING = (SafetensorError, OSError, ValueError, RuntimeError, LookupError, TypeError,
            AttributeError, OverflowError)  # fmt: skip
_TYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
PLACES = "DCP_SHARDING_INFO"
"""Key of a header's metadata: JSON, tensor → where its part begins, and the whole's shape."""
_MAY_BE_REPLACED = os.name == "posix"
"""Whether a file can be removed while it is mapped; Windows keeps it, and so the run's room."""


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file; no more than one head of a tensor is copied at a time.

    Raises:
        OSError: the system could not write.
    """
    assert sys.byteorder == "little", "the format is; no such machine was at hand"
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    laid = sorted(tensors.items(), key=_place)
    end = 0
    for name, tensor in laid:
        start, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": _TYPES[tensor.dtype], "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }  # fmt: skip
    begin = json.dumps(header, separators=(",", ":")).encode()
    begin += b" " * (-(8 + len(begin)) % ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(begin).to_bytes(8, "little") + begin)
        for _, tensor in laid:
            _write(file, tensor.detach())


def _place(named: tuple[str, Tensor]) -> tuple[bool, int, str]:
    """Return what tensors are ordered by, so that each lies where its type may be read."""
    name, tensor = named
    return tensor.nbytes % ALIGNMENT != 0, -tensor.element_size(), name


def _write(file: IO[bytes], tensor: Tensor) -> None:
    if tensor.dim() > 1 and not tensor.is_contiguous():
        for part in tensor:
            _write(file, part)
        return
    file.write(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)


@dataclass(frozen=True)
class Part:
    """A block of a tensor: the file and name it lies under, where it begins, and its shape."""

    file: Path
    key: str
    offsets: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def place(self) -> tuple[slice, ...]:
        """Where it lies in the whole."""
        return tuple(slice(at, at + n) for at, n in zip(self.offsets, self.shape, strict=True))


@dataclass(frozen=True)
class Whole:
    """A stored tensor and the parts that make it up."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    parts: list[Part] = field(default_factory=list)

    def require_complete(self, name: str) -> None:
        """Refuse a tensor of which something is missing, before memory is asked for.

        Raises:
            ValueError: it is.
        """
        inside = all(
            p.stop <= n for part in self.parts for p, n in zip(part.place, self.shape, strict=True)
        )
        if not inside or sum(math.prod(part.shape) for part in self.parts) != math.prod(self.shape):
            raise ValueError(f"the parts of {name} do not make up the whole")


Opened = Mapping[Path, Any]
"""Open safetensors files by path."""


def find_wholes(opened: Opened) -> dict[str, Whole]:
    """Return which tensors open files hold, and where each lies, from their headers.

    Raises:
        ValueError: parts are missing, or contradict each other.
    """
    types = {name: dtype for dtype, name in _TYPES.items()}
    found: dict[str, Whole] = {}
    for path, file in opened.items():
        told = json.loads((file.metadata() or {}).get(PLACES, "{}"))
        for key in file.keys():  # noqa: SIM118 - no mapping
            piece, name = file.get_slice(key), tensor_name(key)
            shape, place = tuple(piece.get_shape()), told.get(key, {})
            kind = types[piece.get_dtype()], tuple(place.get("shape", shape))
            known = found.setdefault(name, Whole(*kind))
            if kind != (known.dtype, known.shape):
                raise ValueError(f"the parts of {name} are of different tensors")
            offsets = tuple(place.get("saved_offsets", [0] * len(shape)))
            known.parts.append(Part(path, key, offsets, shape))
    for name, whole in found.items():
        whole.require_complete(name)
    return found


def files_at(path: Path) -> list[Path]:
    """Return the safetensors files that a path is, or holds if it is a folder of parts."""
    return sorted(path.glob("*.safetensors")) if path.is_dir() else [path]


@contextlib.contextmanager
def open_tensors(path: Path) -> Iterator[dict[Path, Any]]:
    """Yield the open files of a path; see `files_at`.

    Raises:
        CheckpointError: one cannot be read, then or inside the block.
    """
    try:
        with contextlib.ExitStack() as stack:
            yield {file: stack.enter_context(safe_open(file, "pt")) for file in files_at(path)}
    except _READING as error:
        raise _unreadable(path, error) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a safetensors file, mapped into memory where the system can.

    Those of a folder of parts are put together in memory. What is written to them stays in this
    process; the file is not changed. It must not be changed by others either: see
    `coterie.checkpoint.hashing`.

    Raises:
        CheckpointError: it cannot be read.
    """
    if path.is_dir():
        return dict(iterate_tensors(path))
    try:
        return {tensor_name(name): tensor for name, tensor in _read(path).items()}
    except _READING as error:
        raise _unreadable(path, error) from error


def _read(path: Path) -> dict[str, Tensor]:
    if _MAY_BE_REPLACED:
        try:
            return load_file(path)
        except _READING:  # perhaps a file system that maps no files; damage fails again below
            pass
    return load(path.read_bytes())


def tensor_names(path: Path) -> list[str]:
    """Return the names of the tensors that lie at a path, from the headers alone.

    Raises:
        CheckpointError: it cannot be read.
    """
    with open_tensors(path) as opened:
        return list(find_wholes(opened))


def iterate_tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that lie at a path one after the other.

    Raises:
        CheckpointError: it cannot be read.
    """
    with open_tensors(path) as opened:
        for name, whole in find_wholes(opened).items():
            yield name, _put_together(whole, opened)


def _put_together(whole: Whole, opened: Opened) -> Tensor:
    first, *others = [opened[part.file].get_tensor(part.key) for part in whole.parts]
    if not others:
        return first
    made = torch.empty(whole.shape, dtype=whole.dtype)
    for part, tensor in zip(whole.parts, (first, *others), strict=True):
        made[part.place] = tensor
    return made


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return CheckpointError(f"{path.name} cannot be read ({printable(reason[:200], keep='')})")
