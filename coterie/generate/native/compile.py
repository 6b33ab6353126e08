"""Compiling the kernels, once per machine: machine code is kept beside other prepared data.

Every operation is compiled by itself when a program first needs it.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import cached_property
from inspect import unwrap
from typing import Any

from numba import cfunc, njit
from numba.core import config

from coterie.generate.native.folder import cache_folder
from coterie.generate.native.machine import REORDERED

Function = Callable[..., Any]
_FOLDER = str(cache_folder())
_OPERATION = "void(int64, int64, int64, int64, int64)"
_OPTIONS: dict[str, Any] = {"fastmath": REORDERED, "error_model": "numpy", "cache": True}


@contextlib.contextmanager
def _kept() -> Iterator[None]:
    """Let numba keep what is declared inside in our folder."""
    settings: Any = config
    before, settings.CACHE_DIR = settings.CACHE_DIR, _FOLDER
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
