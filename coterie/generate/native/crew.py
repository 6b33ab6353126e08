"""The threads that walk one program: the caller's, and helpers that sleep while there is nothing.

Helpers are threads of Python's that spend their time in compiled code without the interpreter's
lock. They spin for a moment between steps, then wait on a lock (their bell) until it is rung.
"""

import os
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from coterie.generate.native.interpreter import (
    COUNTERS,
    LINE,
    MOST_THREADS,
    STOP,
    announce,
    take_part,
    take_steps,
)

_LINE_BYTES = 64
Words = Any
"""An array of int64."""


class Crew:
    """Walks one program as often as it is asked to.

    Args:
        tables: operations, their numbers, and stages.
        kept: memory that the tables point to; it lives as long as a helper may look at it.
        threads: how many walk, the caller's included.
    """

    def __init__(
        self, tables: tuple[Tensor, Tensor, Tensor], kept: Sequence[Tensor], threads: int
    ) -> None:
        self._tables, self._kept = tables, tuple(kept)
        self._threads = max(min(threads, MOST_THREADS), 1)
        self._process = 0
        self._hire()

    def step(self) -> None:
        """Walk the program once, to its end."""
        self.steps(0, 0, 1)

    def steps(self, records: int, entries: int, most: int) -> None:
        """Walk it again and again, as long as any text goes on that the records speak of.

        Args:
            most: steps, at least 1.
        """
        if os.getpid() != self._process:  # a fork left the helpers behind
            self._hire()
        try:
            sleeping = announce(self._call[4], self._call[3], self._threads)
            if sleeping:
                for number, bell in enumerate(self._bells, start=1):
                    if sleeping >> number & 1:
                        bell.release()
            take_steps(*self._call, records, entries, most)
        except BaseException:
            # An interruption came between the two calls: helpers are at work already, and must not
            # be left with memory that is given back while the exception goes up.
            take_part(*self._call, -1, 0)
            raise

    def _hire(self) -> None:
        """Start helpers around a control block of their own."""
        self._control = _aligned(COUNTERS + 2 * LINE * len(self._tables[2]))
        addresses = (each.data_ptr() for each in self._tables)
        self._call = (*addresses, len(self._tables[2]), self._control.ctypes.data)
        self._bells = [threading.Lock() for _ in range(self._threads - 1)]
        self._process = os.getpid()
        helpers = []
        for number, bell in enumerate(self._bells, start=1):
            bell.acquire()
            kept = (self._tables, self._kept)
            arguments = self._call, self._control, kept, bell, number
            name = f"coterie-decode-{number}"
            helpers.append(threading.Thread(target=_help, args=arguments, name=name, daemon=True))
            helpers[-1].start()
        weakref.finalize(self, _dismiss, self._control, self._bells, helpers, os.getpid())


def _help(
    call: tuple[int, ...], control: Words, kept: object, bell: threading.Lock, number: int
) -> None:
    """Help until the crew is dismissed; `kept` is what the addresses point to."""
    seen = 0
    while not control[STOP]:
        seen = take_part(*call, seen, number)
        if not control[STOP]:
            bell.acquire()


def _dismiss(
    control: Words,
    bells: Sequence[threading.Lock],
    helpers: Sequence[threading.Thread],
    process: int,
) -> None:
    """Let the helpers end; at the end of the process, before what they look at goes."""
    if os.getpid() != process:
        return
    control[STOP] = 1
    for bell in bells:
        if bell.locked():
            bell.release()
    for helper in helpers:
        helper.join(timeout=1.0)


def _aligned(words: int) -> Words:
    """Return zeros that begin with a cache line."""
    room = np.zeros(words * 8 + _LINE_BYTES, dtype=np.uint8)
    skip = -room.ctypes.data % _LINE_BYTES
    return room[skip : skip + words * 8].view(np.int64)
