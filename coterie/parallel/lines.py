"""The connections between this process and the others, and how to cut them.

Whoever waits for a message in gloo waits in C++, where nobody can tell it anything; but a
connection that is shut wakes it at once, as if the other process had been killed.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator

_held: set[tuple[int, int]] = set()


@contextlib.contextmanager
def noted() -> Iterator[None]:
    """Take note of the connections that groups made inside the block open."""
    before = _sockets()
    yield
    _held.update(_sockets() - before)


def hang_up() -> None:
    """Shut every connection that was noted; messages on their way arrive."""
    for number, identity in _held:
        with contextlib.suppress(OSError):  # closed meanwhile, or one that only listens
            if os.fstat(number).st_ino == identity:
                with socket.socket(fileno=os.dup(number)) as line:
                    line.getpeername()
                    line.shutdown(socket.SHUT_RDWR)
    _held.clear()


def _sockets() -> set[tuple[int, int]]:
    """Return the number and the identity of every open socket."""
    found = set()
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):
            status = os.fstat(int(name))
            if stat.S_ISSOCK(status.st_mode):
                found.add((int(name), status.st_ino))
    return found
