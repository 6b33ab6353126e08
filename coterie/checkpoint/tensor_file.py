"""Safetensors files: tensors written from where they lie, and read without being copied.

Ours begin every tensor whose size is a multiple of 64 bytes at such a place, which is where torch
puts memory of its own: products then round alike whether weights were mapped or copied. The format
allows no gaps, so the few others come last.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
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


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a safetensors file, mapped into memory where the system can.

    What is written to them stays in this process; the file is not changed. It must not be changed
    by others either: see `coterie.checkpoint.hashing`.

    Raises:
        CheckpointError: it cannot be read.
    """
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
    """Return the names of the tensors that a safetensors file holds, from its header alone.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        with safe_open(path, "pt") as file:
            return [tensor_name(name) for name in file.keys()]  # noqa: SIM118 - no mapping
    except _READING as error:
        raise _unreadable(path, error) from error


def iterate_tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a safetensors file one after the other.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                yield tensor_name(name), file.get_tensor(name)
    except _READING as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return CheckpointError(f"{path.name} cannot be read ({printable(reason[:200], keep='')})")
