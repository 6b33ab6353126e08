"""Checksums and atomic writes: a file is whole or not there.

Everything a reader might take for a finished result (store, checkpoint, manifest) is written under
another name, flushed to the disk, then renamed: an interruption leaves the old state or none. What
a kill leaves beside it is removed by the next who writes there.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from coterie.foundation.disk import explain_disk_errors, sync_directory, sync_file
from coterie.foundation.errors import UserError
from coterie.foundation.locks import lock_file, own, own_unless_held
from coterie.foundation.places import Place, find_place, is_taken, write_stream
from coterie.foundation.swap import (
    half_written,
    recover,
    rename_new,
    swap_in,
    sweep_files,
    temporary,
)

_CHUNK = 1 << 20


def sha256_bytes(content: bytes) -> str:
    """Return the SHA-256 of some bytes as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path | str) -> str:
    """Return the SHA-256 of a file's content, read in constant memory."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def atomic_file(path: Path | str, *, replace: bool = True) -> Iterator[Path]:
    """Yield the path of a new file that becomes `path` when the block ends without an exception.

    A regular file is replaced and keeps its mode and, where this process may say so, its owner. A
    link is followed. What stands for a device or a pipe is written to, once the block has ended.

    Args:
        replace: whether a regular file that stands there may be replaced; otherwise it is an error.

    Raises:
        UserError: something stands there that is no file, or must not be replaced; the disk is full
            or not writable.
    """
    place = find_place(path)
    if place.stream:
        with _spooled(place) as spooled:
            yield spooled
        return
    target = place.path
    with explain_disk_errors(str(path)):
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep_files(target)
        partial, descriptor = _begin(target)
    try:
        with explain_disk_errors(str(path), within=partial):
            yield partial
        with explain_disk_errors(str(path)):
            sync_file(partial)
            _put(partial, target, replace=replace)
            sync_directory(target.parent)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        os.close(descriptor)


def _begin(target: Path) -> tuple[Path, int]:
    """Create a file beside the target, locked so that others leave it alone while we live."""
    while True:
        partial = temporary(target, "partial")
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        lock_file(descriptor)
        if os.fstat(descriptor).st_nlink:
            return partial, descriptor
        os.close(descriptor)  # it was taken for a dead process's before it was locked


@contextlib.contextmanager
def own_file(path: Path | str, what: str, *, replace: bool = True) -> Iterator[None]:
    """Own the place of one file while it is made, which takes long; a device or pipe has no owner.

    Args:
        path: what will be written, with `atomic_file`.
        what: what is done, in a word or two.
        replace: whether a file that stands there may be replaced; otherwise it is an error.

    Raises:
        OwnedError: somebody else writes there now.
        UserError: nothing can be written there, or a file stands there.
    """
    place = find_place(path)
    with contextlib.nullcontext() if place.stream else own(place.path, what):
        if not replace and is_taken(path):
            raise UserError(f"{path} exists already.", hint="Choose another name, or replace it.")
        yield


@contextlib.contextmanager
def _spooled(place: Place) -> Iterator[Path]:
    """Yield a temporary file whose content goes to a stream at the end."""
    with tempfile.TemporaryDirectory(prefix="coterie-") as folder:
        spooled = Path(folder) / (place.path.name or "stream")
        yield spooled
        write_stream(place, spooled)


def _put(partial: Path, target: Path, *, replace: bool) -> None:
    """Give a finished file its name, and what the old one had besides its content."""
    if not replace:
        try:
            rename_new(partial, target)
        except FileExistsError as error:
            raise UserError(f"{target} exists already.", hint="Choose another name.") from error
        return
    with contextlib.suppress(FileNotFoundError):
        old = target.stat()
        os.chmod(partial, old.st_mode & 0o777)
        if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
            with contextlib.suppress(OSError):
                os.chown(partial, old.st_uid, old.st_gid)
    os.replace(partial, target)


def write_bytes_atomic(path: Path | str, content: bytes, *, replace: bool = True) -> None:
    """Write a file so that it is either the old one or the whole new one; see `atomic_file`.

    Raises:
        UserError: the disk is full or not writable.
    """
    place = find_place(path)
    if place.stream:
        write_stream(place, content)
        return
    with atomic_file(path, replace=replace) as partial:
        partial.write_bytes(content)


def write_text_atomic(path: Path | str, text: str, *, replace: bool = True) -> None:
    """Write a UTF-8 text file atomically; see `write_bytes_atomic`."""
    write_bytes_atomic(path, text.encode("utf-8"), replace=replace)


def write_json_atomic(path: Path | str, value: Any) -> None:
    """Write a JSON file atomically, indented for people; see `write_bytes_atomic`."""
    write_text_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def atomic_directory(
    path: Path | str, *, replace: bool = False, resume: bool = False
) -> Iterator[Path]:
    """Yield a temporary directory that becomes `path` when the block ends without an exception.

    The path has an owner from the beginning to the end (see `foundation.locks`), and whether
    something stands there is asked at both. The temporary directory lies beside it as
    `.NAME.partial-xxxx`, so that the final rename stays on one file system; on any exception, an
    interruption included, it is removed.

    Args:
        path: where the finished directory shall stand; links are followed.
        replace: whether an existing directory may be replaced; otherwise it is an error.
        resume: whether to go on in a directory that was left half written, and to leave it so.

    Raises:
        OwnedError: somebody else writes there now.
        UserError: the target exists (and `replace` is false) or is no directory, or the disk is
            full or not writable.
    """
    target = Path(os.path.realpath(path))
    with own_unless_held(target, "writing"):
        with explain_disk_errors(str(path)):
            left = half_written(target) if resume else None
            recover(target, keep=left)
            _check_free(Path(path), target, replace=replace)
            partial = left or temporary(target, "partial")
            partial.mkdir(exist_ok=left is not None)
        try:
            with explain_disk_errors(str(path), whole=not resume, within=partial):
                yield partial
            with explain_disk_errors(str(path)):
                _check_free(Path(path), target, replace=replace)
                _settle(partial, target)
        except BaseException:
            if not resume:
                shutil.rmtree(partial, ignore_errors=True)
            raise


def _settle(partial: Path, target: Path) -> None:
    """Flush a finished directory to the disk and give it its name."""
    for file in sorted(partial.rglob("*")):
        if file.is_file():
            sync_file(file)
    if target.exists():
        os.chmod(partial, target.stat().st_mode & 0o777)
        swap_in(partial, target)
    else:
        rename_new(partial, target)
    sync_directory(target.parent)


def _check_free(named: Path, target: Path, *, replace: bool) -> None:
    if not os.path.lexists(target):
        return
    if not replace:
        raise UserError(
            f"{named} exists already.",
            hint="Choose another name, or remove it if it is not needed.",
        )
    if not target.is_dir():
        raise UserError(f"{named} is not a folder, so none takes its place.")


def open_append(path: Path | str, error: type[UserError] = UserError) -> IO[str]:
    """Open a text file to append lines to it; a line that a crash tore is closed off first.

    Raises:
        UserError: the disk is full or not writable, or a device or pipe stands there.
    """
    path = Path(path)
    with explain_disk_errors(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            raise error(f"{path} is not a regular file, so nothing is recorded in it.")
        torn = path.exists() and not _ends_with_newline(path)
        file = open(path, "a+", encoding="utf-8", newline="")  # noqa: SIM115 - the caller closes it
        if torn:
            file.write("\n")
        return file


def _ends_with_newline(path: Path) -> bool:
    with open(path, "rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
