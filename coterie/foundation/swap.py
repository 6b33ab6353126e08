"""Renaming without loss, and mending what a kill between two renames left.

Beside `NAME` lie, while it is written or after a kill:

    .NAME.partial-xxxx       the new one, half written; or the old one, being removed
    .NAME.new-xxxx           the new one, whole, about to take its place
    .NAME.old-xxxx/content   the old one, moved aside

Where the system can exchange two directories in one step, the latter two never come to be.
"""

import contextlib
import ctypes
import errno
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from coterie.foundation.locks import OwnedError, lock_file, own, own_unless_held, owner_of, sibling
from coterie.foundation.printable import printable

_LOG = logging.getLogger("coterie")
_LEFT = re.compile(r"\.(.+)\.(partial-|new-|old-|lock)[0-9a-z_]*")
_AT_FDCWD = -100
_NO_REPLACE, _EXCHANGE = 1, 2
_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)


def temporary(path: Path, kind: str) -> Path:
    """Return a new hidden name beside a path."""
    return sibling(path, f"{kind}-{secrets.token_hex(4)}")


def rename_new(source: Path, target: Path) -> None:
    """Rename where nothing stands.

    Raises:
        FileExistsError: something stands there by now.
    """
    if _rename(source, target, _NO_REPLACE):
        return
    if source.is_dir() or not hasattr(os, "link"):
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        os.rename(source, target)
    else:
        os.link(source, target)
        os.unlink(source)


def swap_in(partial: Path, path: Path) -> None:
    """Put a whole new directory in place of an old one, and remove the old one."""
    if _rename(partial, path, _EXCHANGE):
        shutil.rmtree(partial, ignore_errors=True)
        return
    new, old = temporary(path, "new"), temporary(path, "old")
    os.rename(partial, new)
    try:
        old.mkdir()
        os.rename(path, old / "content")
        os.rename(new, path)
    except BaseException:
        if not os.path.lexists(path):
            os.rename(old / "content", path)  # put back what stood there
        shutil.rmtree(new, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _rename(source: Path, target: Path, flags: int) -> bool:
    """Rename with Linux's flags; return false where the system or the file system has none."""
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    names = (os.fsencode(source), os.fsencode(target))
    if function(_AT_FDCWD, names[0], _AT_FDCWD, names[1], ctypes.c_uint(flags)) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(source), None, str(target))


def half_written(path: Path) -> Path | None:
    """Return the half-written directory that a killed command left beside a path, the latest."""
    found = list(_left_beside(path, "partial"))
    return max(found, key=lambda entry: entry.stat().st_mtime, default=None)


def recover(path: Path, keep: Path | None = None) -> None:
    """Mend what a killed command left beside a path that the caller owns, and say so.

    Either the old or the new stands afterwards, whichever was nearer; the rest is removed, but for
    what the caller wants to `keep`.
    """
    left = {kind: list(_left_beside(path, kind)) for kind in ("new", "old", "partial")}
    left["partial"] = [each for each in left["partial"] if each != keep]
    if not any(left.values()):
        return
    shown = printable(path, keep="")
    if not os.path.lexists(path):
        contents = [old / "content" for old in left["old"] if (old / "content").exists()]
        if left["new"]:
            os.rename(left["new"].pop(), path)
            _LOG.warning("%s: a command was killed while replacing it; the new one stands.", shown)
        elif contents:
            os.rename(contents[0], path)
            _LOG.warning("%s: a command was killed while replacing it; the old one is back.", shown)
    remains = [each for found in left.values() for each in found if each.is_dir()]
    for each in remains:
        shutil.rmtree(each, ignore_errors=True)
    if left["partial"] and remains:
        _LOG.warning("%s: removed what a killed command left half written.", shown)


def restore(path: Path | str) -> None:
    """Put back what a killed command moved aside, before a path is read; see `recover`.

    Raises:
        OwnedError: it is being replaced now.
    """
    try:
        place = Path(os.path.realpath(path))
    except ValueError:  # a NUL in the name: nothing can stand there
        return
    if os.path.lexists(place):
        return
    if any(True for kind in ("new", "old") for _ in _left_beside(place, kind)):
        try:
            with own_unless_held(place, "recovery"):
                recover(place)
        except OwnedError:
            if not os.path.lexists(place):  # else its owner has put the new one there by now
                raise


def restore_below(folder: Path) -> None:
    """Put back what a killed command moved aside in a folder that is read; see `restore`."""
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            found = _LEFT.fullmatch(entry.name)
            if found and found[2] in ("new-", "old-"):
                with contextlib.suppress(OwnedError):
                    restore(folder / found[1])


def sweep(folder: Path) -> None:
    """Mend all that killed commands left in a folder; what is being written now is left alone."""
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            if (found := _LEFT.fullmatch(entry.name)) is None:
                continue
            if entry.is_file(follow_symlinks=False) and found[2] == "partial-":
                _remove_dead(Path(entry.path))
            elif owner_of(folder / found[1]) is None:  # which removes the lock file of a dead owner
                with contextlib.suppress(OwnedError), own(folder / found[1], "sweeping"):
                    recover(folder / found[1])


def sweep_files(path: Path) -> None:
    """Remove half-written files of this name whose writers have died."""
    for entry in _beside(path, "partial"):
        if entry.is_file(follow_symlinks=False):
            _remove_dead(Path(entry.path))


def _remove_dead(partial: Path) -> None:
    """Remove a half-written file unless its writer, who keeps it locked, lives."""
    with contextlib.suppress(OSError):
        descriptor = os.open(partial, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if lock_file(descriptor):
                os.unlink(partial)
                shown = printable(partial, keep="")
                _LOG.warning("Removed %s, which a killed command left half written.", shown)
        finally:
            os.close(descriptor)


def _left_beside(path: Path, kind: str) -> Iterator[Path]:
    """Yield the directories of one kind that lie beside a path."""
    for entry in _beside(path, kind):
        if entry.is_dir(follow_symlinks=False):
            yield Path(entry.path)


def _beside(path: Path, kind: str) -> list[os.DirEntry[str]]:
    pattern = re.compile(re.escape(sibling(path, f"{kind}-").name) + "[0-9a-z_]+")
    try:
        entries = [entry for entry in os.scandir(path.parent) if pattern.fullmatch(entry.name)]
    except OSError:
        return []
    return sorted(entries, key=lambda entry: entry.name)
