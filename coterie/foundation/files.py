"""Files that are either whole or not there: checksums and atomic writes.

Everything a reader might take for a finished result (store, checkpoint, manifest) is written under
another name, flushed to the disk, then renamed: an interruption leaves the old state or none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coterie.foundation.disk import explain_disk_errors, sync_directory, sync_file
from coterie.foundation.errors import UserError

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


def write_bytes_atomic(path: Path | str, content: bytes) -> None:
    """Write a file so that it is either the old one or the whole new one.

    Raises:
        UserError: the disk is full or not writable.
    """
    path = Path(path)
    with explain_disk_errors(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.partial-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            raise
        sync_directory(path.parent)


def write_text_atomic(path: Path | str, text: str) -> None:
    """Write a UTF-8 text file atomically; see `write_bytes_atomic`."""
    write_bytes_atomic(path, text.encode("utf-8"))


def write_json_atomic(path: Path | str, value: Any) -> None:
    """Write a JSON file atomically, indented for people; see `write_bytes_atomic`."""
    write_text_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def atomic_directory(path: Path | str, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary directory that becomes `path` when the block ends without an exception.

    The temporary one lies beside the target as `.NAME.partial-xxxx`, so that the final rename stays
    on one file system. On any exception, an interruption included, it is removed.

    Args:
        path: where the finished directory shall stand.
        replace: whether an existing directory may be replaced; otherwise it is an error.

    Raises:
        UserError: the target exists (and `replace` is false), or the disk is full or not writable.
    """
    path = Path(path)
    if path.exists() and not replace:
        raise UserError(
            f"{path} exists already.", hint="Choose another name, or remove it if it is not needed."
        )
    with explain_disk_errors(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.partial-", dir=path.parent))
        try:
            yield partial
            os.chmod(partial, 0o755)
            for file in sorted(partial.rglob("*")):
                if file.is_file():
                    sync_file(file)
            _swap_in(partial, path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        sync_directory(path.parent)


def _swap_in(partial: Path, path: Path) -> None:
    """Rename `partial` to `path`, moving an existing one out of the way first."""
    if not path.exists():
        os.rename(partial, path)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old-", dir=path.parent))
    os.rename(path, old / "content")
    try:
        os.rename(partial, path)
    except BaseException:
        os.rename(old / "content", path)  # put back what stood there
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
