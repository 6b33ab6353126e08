"""Where bytes for a path go: files are replaced, devices and pipes written to, links followed.

A name that a person gives for an output may stand for many things. To make a new file and rename it
onto the name, as atomic writing does, would replace a device by a file, and a link by a copy.
"""

import contextlib
import errno
import os
import re
import shutil
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from coterie.foundation.disk import explain_disk_errors
from coterie.foundation.errors import UserError

_DESCRIPTOR = re.compile(r"/(?:proc/(?:self|thread-self|\d+)|dev)/fd/(\d+)")
_STANDARD = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_HOPS = 40


@dataclass(frozen=True)
class Place:
    """Where an output goes: a regular file, which may not exist yet, or a stream."""

    path: Path
    stream: bool
    descriptor: int | None = None  # of this process, where the name stands for one


def find_place(path: Path | str) -> Place:
    """Return where an output goes, links followed, dangling ones too.

    Raises:
        UserError: nothing can be written there: a folder, a disk, a socket, a circle of links, a
            write-protected file.
    """
    path = Path(path)
    with explain_disk_errors(str(path)):
        try:
            mode = os.stat(path).st_mode
        except FileNotFoundError:
            return Place(Path(os.path.realpath(path)), stream=False)
        except ValueError as error:  # a NUL in the name
            raise UserError(f"{path!r} cannot name a file: {error}.") from error
        if stat.S_ISDIR(mode):
            raise UserError(f"{path} is a folder.", hint="Name a file inside it.")
        if stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
            kind = "disk" if stat.S_ISBLK(mode) else "socket"
            raise UserError(f"{path} is a {kind}, not a place for a file.", hint="Name a file.")
        number = _own_descriptor(path)
        if number is not None or not stat.S_ISREG(mode):
            return Place(path, stream=True, descriptor=number)
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, "it is write-protected", str(path))
        return Place(Path(os.path.realpath(path)), stream=False)


def is_taken(path: Path | str) -> bool:
    """Return whether writing there would replace something; a device or pipe takes any output."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # a dangling link, too, takes it; writing says what is wrong
        return False
    stream = stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)
    return not stream and _own_descriptor(Path(path)) is None


def write_stream(place: Place, content: bytes | Path) -> None:
    """Write bytes, or what a file holds, to a device or pipe.

    Raises:
        UserError: nobody reads the pipe, or the device takes no more.
    """
    with explain_disk_errors(str(place.path), whole=False):
        if place.descriptor is None:
            descriptor = _open_stream(place.path)
        else:  # through the process's own, so that what is printed next comes after it
            sys.stdout.flush()
            descriptor = os.dup(place.descriptor)
        with os.fdopen(descriptor, "wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                with open(content, "rb") as source:
                    shutil.copyfileobj(source, file, 1 << 20)


def _open_stream(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ENXIO and path.is_fifo():
            raise UserError(
                f"Nobody reads the pipe {path}.", hint="Start the program that reads it first."
            ) from error
        raise
    os.set_blocking(descriptor, True)
    return descriptor


def _own_descriptor(path: Path) -> int | None:
    """Return the open descriptor that a name such as /dev/stdout stands for, if it is one."""
    name = os.path.abspath(path)
    for _ in range(_HOPS):
        if name in _STANDARD:
            return _STANDARD[name]
        name = os.path.join(os.path.realpath(os.path.dirname(name)), os.path.basename(name))
        found = _DESCRIPTOR.fullmatch(name)
        if found and name.startswith(("/dev/", f"/proc/{os.getpid()}/", "/proc/self/")):
            return int(found[1])
        target = None
        with contextlib.suppress(OSError):
            target = os.readlink(name)
        if target is None:
            break
        name = os.path.abspath(os.path.join(os.path.dirname(name), target))
    return None
