"""Errors of the disk as messages for whoever named the path."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from coterie.foundation.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""How "no space left" reaches us on a full disk, under a quota, and under a limit on file sizes."""
_FORBIDDEN = (errno.EACCES, errno.EROFS, errno.EPERM)
_IMPOSSIBLE = (
    errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP,
    errno.EBUSY, errno.EINVAL, errno.ENXIO, errno.ENODEV, errno.EIO, errno.EPIPE, errno.ESTALE,
    errno.EXDEV, errno.ENOTEMPTY, errno.ETXTBSY,
)  # fmt: skip


@contextlib.contextmanager
def explain_disk_errors(
    what: str, *, whole: bool = True, within: Path | None = None
) -> Iterator[None]:
    """Turn a refusal of the disk inside the block into a `UserError` that names `what`.

    Args:
        whole: whether what stood there stands there still; false where bytes go to a device or are
            appended to a file.
        within: leave errors alone that name a file outside this folder: what is read is not ours.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in _FULL or _is_short(error)
        if within is not None and not full:
            named = within if error.filename is None else os.fsdecode(error.filename)
            if not Path(os.path.abspath(named)).is_relative_to(within):
                raise
            if error.errno == errno.EPIPE:  # the reader of what is printed went away
                raise
        if full:
            kept = " Nothing half-written was left behind." if whole else ""
            raise UserError(
                f"The disk is full: could not write {what} ({error.strerror or error}).{kept}",
                hint="Free some space (df -h shows where), then run the same command again.",
            ) from error
        if error.errno in _FORBIDDEN:
            raise UserError(
                f"No permission to write {what} ({error.strerror}).",
                hint="Choose another place, or change the folder's permissions.",
            ) from error
        if error.errno in _IMPOSSIBLE:
            where = f" ({error.filename})" if error.filename else ""
            raise UserError(
                f"Cannot write {what}: {error.strerror}{where}.",
                hint="Choose another place; where runs and caches lie is said by COTERIE_RUNS and "
                "COTERIE_CACHE.",
            ) from error
        raise


def _is_short(error: OSError) -> bool:
    """Whether numpy wrote less than it should have, which it says without the system's number."""
    return (
        error.errno is None
        and re.fullmatch(r"\d+ requested and \d+ written", str(error)) is not None
    )


def sync_directory(path: Path) -> None:
    """Flush a directory's own entries to the disk, so that a rename survives a power cut."""
    with contextlib.suppress(OSError):  # not every platform opens directories
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_file(path: Path) -> None:
    """Flush one closed file's content to the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
