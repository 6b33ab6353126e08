"""Stores that lie elsewhere (`s3://`, `gs://`, `memory://` …): read from a copy, written whole.

The copy lies in the cache. Each time that a store is opened its manifest is fetched, and every file
of the copy that has not the manifest's SHA-256 is fetched anew: what is damaged, cut or out of date
is never read. Copies lie to one another as their URLs do, so a merged store finds what it names. A
store is made here and then uploaded, its manifest last, so that an upload that was interrupted
leaves nothing that looks like a store.
"""

from __future__ import annotations

import contextlib
import functools
import os
import posixpath
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coterie.data.manifest import (
    FILE_NAME,
    MERGED_FORMAT,
    Manifest,
    MergedManifest,
    damaged,
    is_merged,
    read_manifest,
    read_record,
)
from coterie.data.remote import library, reaching
from coterie.foundation.errors import StoreError, UserError
from coterie.foundation.files import atomic_file, sha256_file
from coterie.foundation.locks import own
from coterie.foundation.runs import cache_root
from coterie.tokenizer.saving import FILE_NAME as TOKENIZER_FILE

_URL = re.compile(
    r"([a-z][a-z0-9+.-]+):/+([^/].*)", re.DOTALL
)  # a Path has lost one of two slashes


def url_of(path: Path | str) -> str | None:
    """Return the URL that a path stands for; None where it is one of this machine."""
    found = _URL.fullmatch(str(path))
    return f"{found[1]}://{found[2]}" if found and not os.path.lexists(path) else None


def mirrored(path: Path | str) -> Path:
    """Return where a store is read: its folder, or of one that lies elsewhere a sound copy.

    What a URL means is looked at once in a process.

    Raises:
        StoreError: there is none, or a file there is not what its manifest says.
        DataError: it cannot be reached.
    """
    url = url_of(path)
    return Path(path) if url is None else _mirrored(url)


@functools.cache
def _mirrored(url: str, merged: bool = True) -> Path:
    """Return a sound copy of a store, and of those that it names if it may be `merged`."""
    system, root, copy = _place(url, "stores-elsewhere")
    with own(copy, "fetching a store", wait=True), tempfile.TemporaryDirectory() as folder:
        about = Path(folder) / FILE_NAME
        with reaching(url):
            if not system.isfile(f"{root}/{FILE_NAME}"):
                raise StoreError(
                    f"There is no store at {url}.",
                    hint=f"Make one: coterie data prepare TEXT... --out {url}",
                )
            system.get_file(f"{root}/{FILE_NAME}", str(about))
        parts, wanted = list[str](), dict[str, str]()
        if is_merged(about.parent):
            if not merged:
                raise damaged(Path(url), "it is a merged store, which none can name")
            manifest = read_record(about.parent, MergedManifest, MERGED_FORMAT)
            parts = [part.path for part in manifest.parts]
        else:
            wanted = _sums(read_manifest(about.parent))
        copy.mkdir(parents=True, exist_ok=True)
        inside = {Path(part).parts[0] for part in parts}
        for stranger in set(os.listdir(copy)) - {*wanted, *inside, TOKENIZER_FILE}:
            old = copy / stranger  # the old manifest too: half a copy is no store
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
        for name, digest in wanted.items():
            _fetch(url, system, f"{root}/{name}", copy / name, digest)
        _fetch(url, system, f"{root}/{TOKENIZER_FILE}", copy / TOKENIZER_FILE, None)
        for part in parts:
            _mirrored(_beside(url, part), merged=False)
        with atomic_file(copy / FILE_NAME) as partial:
            shutil.copyfile(about, partial)
    return copy


def _beside(url: str, path: str) -> str:
    """Return the URL of a path that a store at another one names.

    Raises:
        StoreError: it leads out of the file system.
    """
    scheme, _, place = url.partition("://")
    joined = posixpath.normpath(posixpath.join(place, path))
    if joined.startswith(("..", "/")):
        raise damaged(Path(url), f"the path “{path}” leads out of {scheme}://")
    return f"{scheme}://{joined}"


def home_of(path: Path | str) -> Path:
    """Return where a store lies on this machine once it is made: its folder, or that of a copy."""
    url = url_of(path)
    return Path(path) if url is None else _place(url, "stores-elsewhere")[2]


@contextlib.contextmanager
def uploaded(out: Path | str, replace: bool, marker: str = FILE_NAME) -> Iterator[Path]:
    """Yield where to make a store; if it shall lie elsewhere, it is then uploaded.

    Args:
        out: the folder or URL.
        replace: whether a store that stands there may be replaced.
        marker: the file that says that all is there.

    Raises:
        UserError: there is one and it may not.
        DataError: the place cannot be reached.
    """
    url = url_of(out)
    if url is None:
        yield Path(out)
        return
    system, root, folder = _place(url, "uploads")
    with reaching(url):
        stands = system.exists(f"{root}/{marker}")
    if stands and not replace:
        raise UserError(
            f"{url} exists already.", hint="Choose another --out, or --replace what is there."
        )
    yield folder
    files = [each for each in sorted(folder.rglob("*")) if each.is_file()]
    names = [each.relative_to(folder).as_posix() for each in files]
    with own(folder, "uploading a store"):
        with reaching(url):
            if stands:
                system.rm_file(f"{root}/{marker}")
            for name in sorted(names, key=lambda name: name == marker):  # which is the last
                system.makedirs(posixpath.dirname(f"{root}/{name}"), exist_ok=True)
                system.put_file(str(folder / name), f"{root}/{name}")
        copy = home_of(out)
        with own(copy, "fetching a store", wait=True):
            shutil.rmtree(copy, ignore_errors=True)
            copy.parent.mkdir(parents=True, exist_ok=True)
            os.replace(folder, copy)
    _mirrored.cache_clear()


def _place(url: str, kind: str) -> tuple[Any, str, Path]:
    """Return the file system, the path in it, and the folder of the cache that stands for it."""
    with reaching(url):
        system, root = library("fsspec", "remote").core.url_to_fs(url)
    protocol = system.protocol if isinstance(system.protocol, str) else system.protocol[0]
    root = root.rstrip("/")
    return system, root, cache_root() / kind / protocol / root.strip("/")


def _sums(manifest: Manifest) -> dict[str, str]:
    """Return the SHA-256 of each file that a manifest vouches for."""
    return {part.file: part.sha256 for split in manifest.splits.values() for part in split.files}


def _fetch(url: str, system: Any, place: str, copy: Path, digest: str | None) -> None:
    """Fetch a file unless the copy is what it must be.

    Raises:
        StoreError: what was fetched is not.
    """
    if digest is not None and copy.is_file() and sha256_file(copy) == digest:
        return
    with atomic_file(copy) as partial:
        with reaching(url):
            if not system.isfile(place):
                raise damaged(Path(url), f"{copy.name} is missing")
            system.get_file(place, str(partial))
        if digest is not None and sha256_file(partial) != digest:
            raise StoreError(
                f"{url}/{copy.name} is not what the store's manifest says.",
                hint="Upload the store again, or prepare it again with --replace.",
            )
