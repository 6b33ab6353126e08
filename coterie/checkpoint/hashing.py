"""Checksums of files that are begun ahead of their use, and whether a file is still what it was.

Hashing takes a core and no lock of the interpreter's, so that it goes on beside imports and other
checks. A file counts as changed when its size, its times or its place on the disk differ.
"""

import hashlib
import threading
from contextlib import suppress
from pathlib import Path

from coterie.checkpoint.layout import (
    MANIFEST,
    OPTIMIZER,
    is_checkpoint,
    list_checkpoints,
    part_of,
    step_of,
)
from coterie.foundation.errors import CheckpointError
from coterie.foundation.runs import find_run

_CHUNK = 16 << 20  # between chunks a busy interpreter lets others wait
Stamp = tuple[int, ...]


def stamp_of(path: Path) -> Stamp:
    """Return what changes whenever a file is written to or replaced.

    Raises:
        OSError: it cannot be found.
    """
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class _Hashing:
    """One file on its way through SHA-256, in a thread."""

    def __init__(self, path: Path) -> None:
        self.stamp = stamp_of(path)
        self._path, self._digest = path, hashlib.sha256()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        room = memoryview(bytearray(min(_CHUNK, max(self.stamp[2], 1))))
        try:
            with self._path.open("rb", buffering=0) as file:
                while size := file.readinto(room):
                    self._digest.update(room[:size])
        except OSError as error:
            self._error = error

    def digest(self) -> str:
        """Wait for the end and return 64 hexadecimal digits."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._digest.hexdigest()


_begun: dict[Path, _Hashing] = {}
_hashed: dict[Path, Stamp] = {}


def begin(path: Path) -> None:
    """Begin to hash a file, unless that is done already."""
    if path not in _begun:
        _begun[path] = _Hashing(path)


def digest_of(path: Path) -> str:
    """Return a file's SHA-256, from what was begun if the file is still the same.

    Raises:
        OSError: it cannot be read.
    """
    begin(path)
    found = _begun.pop(path)
    if found.stamp != stamp_of(path):
        found = _Hashing(path)
    digest = found.digest()
    _hashed[path] = found.stamp
    return digest


def begin_ahead(target: str | Path, step: int | None = None) -> None:
    """Begin to hash the files of the checkpoint that a target probably means.

    Whoever loads it says what is wrong with it; here nothing is.
    """
    with suppress(Exception):
        path = Path(target)
        if not is_checkpoint(path):
            found = list_checkpoints(find_run(target).checkpoints)
            path = next(each for each in reversed(found) if step in (None, step_of(each)))
        for file in path.rglob("*"):
            if file.is_file() and part_of(str(file.relative_to(path))) not in (MANIFEST, OPTIMIZER):
                begin(file)


def require_unchanged(path: Path, *, mapped: bool = False) -> None:
    """Refuse to go on with a file that is no longer what was hashed; one never hashed passes.

    Args:
        mapped: whether it was mapped since. What was removed, or replaced by another file, is then
            still there for whoever mapped it; what was written to in place is not.

    Raises:
        CheckpointError: it was changed or cut short.
    """
    known = _hashed.get(path)
    try:
        found = stamp_of(path)
    except OSError:
        found = None
    if known in (None, found):
        return
    assert known is not None
    if mapped and (found is None or found[:2] != known[:2] or found[2:4] == known[2:4]):
        return
    raise CheckpointError(
        f"{path} was changed while it was in use, so its weights are not those that were checked.",
        hint="Restore it from a copy and load it again. A checkpoint's files are replaced as a "
        "whole, never written to in place.",
    )
