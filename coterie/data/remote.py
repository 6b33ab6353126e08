"""What lies elsewhere, through a library that knows how to reach it.

Files of other file systems (`s3://`, `gs://`, `memory://` …) come through `fsspec`. Each is read
from a copy in the cache, beside which its SHA-256 and the original's version stand: both readings
of a preparation see one content, and a copy that is damaged or out of date is fetched again.

Data sets come through Hugging Face's `datasets`, row by row as they arrive: `hf:NAME`,
`hf:NAME/CONFIG` after the owner's name, `:SPLIT` at the end.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coterie.data.reading import Reading, Tell
from coterie.data.tables import Rows, choose_column, document_of
from coterie.foundation.errors import DataError, StoreError, UserError
from coterie.foundation.files import atomic_file, sha256_file, write_json_atomic
from coterie.foundation.records import read_json
from coterie.foundation.runs import cache_root

_URL = re.compile(r"([a-z][a-z0-9+.-]+)://.+", re.DOTALL)


def is_url(name: str) -> bool:
    """Whether an input lies in another file system."""
    return _URL.fullmatch(name) is not None


def files_at(url: str) -> list[str]:
    """Return the files that a URL means: itself, those below a folder, or those of a pattern.

    Raises:
        DataError: there are none, or the place cannot be reached.
    """
    with reaching(url):
        system, path = library("fsspec", "remote").core.url_to_fs(url)
        if any(sign in path for sign in "*?["):
            found = [each for each in system.glob(path) if system.isfile(each)]
        elif system.isfile(path):
            found = [path]
        else:
            found = system.find(path)
        shown = (each for each in sorted(found) if "/." not in each.removeprefix(path))
        files = [system.unstrip_protocol(each) for each in shown]
    if not files:
        raise DataError(f"There is nothing at {url}.")
    return files


def fetched(url: str) -> Path:
    """Return a copy of a file, which is fetched unless it is there whole and up to date.

    Raises:
        DataError: it cannot be reached.
    """
    with reaching(url):
        system, path = library("fsspec", "remote").core.url_to_fs(url)
        version = str(system.ukey(path))
        protocol = system.protocol if isinstance(system.protocol, str) else system.protocol[0]
        copy = cache_root() / "remote" / protocol / path.strip("/")
        about = copy.with_name(f".{copy.name}.json")
        with contextlib.suppress(OSError, StoreError):
            if read_json(about, StoreError) == {"version": version, "sha256": sha256_file(copy)}:
                return copy
        copy.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(copy) as partial:
            system.get_file(path, str(partial))
        write_json_atomic(about, {"version": version, "sha256": sha256_file(copy)})
        return copy


class HubSource:
    """A data set that `datasets` streams."""

    def __init__(self, given: str) -> None:
        """Name the data set; it is asked for when it is read."""
        name, _, self._split = given.partition(":")
        self._words = [*filter(None, ["/".join(name.split("/")[:2]), *name.split("/")[2:]])]
        if os.path.isdir(name):
            self._words = [name]
        self._name = given
        self._version: str | None = None  # asked for once

    @property
    def identity(self) -> str:
        """Its name, and the version that it has now: a commit of the hub, or that of files here.

        Raises:
            DataError: the library is missing, or does not reach the data set.
        """
        if self._version is None:
            datasets = library("datasets", "datasets")
            with reaching(f"hf:{self._name}"):
                builder = datasets.load_dataset_builder(*self._words)
                self._version = f"{builder.config_id}\0{builder.hash}"
        return f"hf\0{self._name}\0{self._version}"

    def rows(self, reading: Reading, tell: Tell) -> Rows:
        """Yield the rows.

        Raises:
            DataError: the library is missing, or does not reach the data set.
            ColumnError: the column of the text cannot be decided.
        """
        datasets = library("datasets", "datasets")
        column = None
        with reaching(f"hf:{self._name}"):
            split = self._split or "train"
            rows = iter(datasets.load_dataset(*self._words, split=split, streaming=True))
        for number in range(1, 1 << 62):
            with reaching(f"hf:{self._name}"):
                row: dict[str, Any] | None = next(rows, None)
            if row is None:
                return
            if column is None:
                texts = [name for name, value in row.items() if isinstance(value, str)]
                column = choose_column(f"hf:{self._name}", reading, row, texts, tell)
            yield from document_of(f"hf:{self._name}", f"hf:{self._name}#{number}", row, column)


@contextlib.contextmanager
def reaching(place: str) -> Iterator[None]:
    """Turn whatever a library raises into words about the place."""
    try:
        yield
    except UserError:
        raise
    except ImportError as error:  # the one for this kind of place
        raise DataError(
            f"{place} needs “{error.name or error}”, which is not installed.",
            hint=f"Run: pip install {error.name or 'the package that it names'}",
        ) from error
    except Exception as error:
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(f"{place} cannot be read: {said}") from error


def library(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DataError(
            f"The package “{name}” is not installed.",
            hint=f'Run: pip install "coterie[{extra}]"',
        ) from error
