"""Compiling the kernels, once per machine: machine code is kept beside other prepared data.

Every operation is compiled by itself when a program first needs it. The folder's name says what it
was compiled from, because numba looks at one file alone when it decides whether what it has kept is
still valid.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from inspect import unwrap
from pathlib import Path
from typing import Any

import numba
from numba import cfunc, njit
from numba.core import config

from coterie.foundation.runs import cache_root
from coterie.generate.native.machine import REORDERED

Function = Callable[..., Any]
_OPERATION = "void(int64, int64, int64, int64, int64)"
_OPTIONS: dict[str, Any] = {"fastmath": REORDERED, "error_model": "numpy", "cache": True}


@cache
def cache_folder() -> Path:
    """Return where the machine code of these very kernels is kept."""
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return cache_root() / "kernels" / digest.hexdigest()[:16]


@contextlib.contextmanager
def _kept() -> Iterator[None]:
    """Let numba keep what is declared inside in our folder."""
    settings: Any = config
    before, settings.CACHE_DIR = settings.CACHE_DIR, str(cache_folder())
    try:
        yield
    finally:
        settings.CACHE_DIR = before


def entry_point(function: Function) -> Function:
    """Return the function compiled, with all that it calls, for calls from Python."""
    with _kept():
        return njit(nogil=True, **_OPTIONS)(unwrap(function))


class Kernel:
    """A function that is called by address; by default an operation.

    An operation takes the addresses of its fields and of its numbers, then part, item and thread.
    """

    def __init__(self, function: Function, signature: str = _OPERATION) -> None:
        self._function, self._signature = unwrap(function), signature

    @cached_property
    def address(self) -> int:
        """Where its machine code is; compiled, or loaded, when first asked for."""
        with _kept():
            self._compiled = cfunc(self._signature, **_OPTIONS)(self._function)
        address = self._compiled.address
        assert address is not None
        return address


def compiled_before() -> bool:
    """Return whether machine code of these kernels is kept on this machine."""
    return any(cache_folder().rglob("*take_part*.nbc"))
