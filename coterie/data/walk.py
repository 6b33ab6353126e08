"""All files below a folder: each is found once, and what cannot be read is reported, not dropped.

Links to folders are followed. A folder that several ways lead to is read once, under its own name
where that lies below too; so links in a circle come to an end.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from coterie.data.unpack import unreadable

_IGNORED = {"__pycache__"}


@dataclass
class Found:
    """What lies below a folder.

    Attributes:
        files: regular files in order of their paths.
        problems: what cannot be read, and why.
        hidden: entries passed over because of their names.
        repeated: links to folders that are read already, and where.
    """

    files: list[Path] = field(default_factory=list)
    problems: list[tuple[Path, str]] = field(default_factory=list)
    hidden: list[Path] = field(default_factory=list)
    repeated: list[tuple[Path, Path]] = field(default_factory=list)


def files_below(folder: Path) -> Found:
    """Return all files below a folder; only the folder itself must be readable.

    Raises:
        DataError: the folder cannot be read.
    """
    try:
        os.listdir(folder)
    except OSError as error:
        raise unreadable(folder, error) from error
    found = Found()
    # A link to a folder above would lead out and back in again.
    seen = {identity: above for above in folder.resolve().parents if (identity := _identity(above))}
    own, linked = deque([folder]), deque[Path]()
    while own or linked:
        at = own.popleft() if own else linked.popleft()
        _visit(at, found, seen, own, linked)
    found.files.sort(key=Path.as_posix)
    found.problems.sort(key=lambda problem: problem[0].parts)
    return found


def _visit(
    folder: Path,
    found: Found,
    seen: dict[tuple[int, int], Path],
    own: deque[Path],
    linked: deque[Path],
) -> None:
    """Sort the entries of one folder; folders below are queued, the linked ones after all own."""
    try:
        identity = _identity(folder)
        if identity in seen:
            found.repeated.append((folder, seen[identity]))
            return
        seen[identity] = folder
        names = sorted(os.listdir(folder))
    except OSError as error:
        found.problems.append((folder, unreadable(folder, error).message))
        return
    for name in names:
        path = folder / name
        if name.startswith(".") or name in _IGNORED:
            found.hidden.append(path)
            continue
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            found.problems.append((path, _unreachable(path, error)))
            continue
        if stat.S_ISDIR(mode):
            (linked if path.is_symlink() else own).append(path)
        elif stat.S_ISREG(mode):
            found.files.append(path)
        else:
            found.problems.append((path, f"{path} is {_special(mode)}, not a file."))


def _identity(folder: Path) -> tuple[int, int]:
    """Return a folder's identity, the same by whatever path it was reached."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _unreachable(path: Path, error: OSError) -> str:
    if not path.is_symlink():
        return unreadable(path, error).message
    return f"{path} is a link to {os.readlink(path)}, which cannot be read: {error.strerror}."


def _special(mode: int) -> str:
    kinds = {stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}
    return next((name for is_kind, name in kinds.items() if is_kind(mode)), "a device")
