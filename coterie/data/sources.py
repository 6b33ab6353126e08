"""What the user names as input, as a stream of documents that can be read more than once.

An input is a file, a folder (read recursively, in order of names) or the word `shakespeare` for the
corpus that is shipped. Text files are one document each; JSONL, CSV and Parquet one per row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from coterie.data.corpus import shakespeare
from coterie.data.documents import Document
from coterie.data.tables import READERS, ColumnError
from coterie.data.text import COMPRESSED, read_text
from coterie.foundation.errors import DataError, nearest
from coterie.foundation.files import sha256_file

SHIPPED = {"shakespeare": shakespeare}
OnError = Literal["stop", "skip"]
_PROBLEMS_KEPT = 100
_IGNORED_FOLDERS = {"__pycache__"}


@dataclass
class ReadingReport:
    """How one reading of the sources went.

    Attributes:
        documents: documents handed out.
        empty_files: files in folders that hold nothing.
        skipped: rows and files left out because they could not be used.
        problems: where and why, for the first hundred of them.
    """

    documents: int = 0
    empty_files: int = 0
    skipped: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, problem: str) -> None:
        """Count one thing left out."""
        self.skipped += 1
        if len(self.problems) < _PROBLEMS_KEPT:
            self.problems.append(problem)


@dataclass(frozen=True)
class _Input:
    """One file or shipped corpus to read; `named` says that the user named the file itself."""

    name: str
    path: Path | None
    named: bool


class Sources:
    """The documents of all inputs, in order; every iteration reads them afresh.

    Attributes:
        report: how the latest iteration went (or goes).
    """

    def __init__(
        self, inputs: Sequence[str | Path], column: str | None = None, on_error: OnError = "stop"
    ) -> None:
        """Find the files.

        Args:
            inputs: files, folders, or names of shipped corpora.
            column: which column of tables holds the text; by default `text` or the only one.
            on_error: whether a row or file that cannot be used stops the reading or is left out.

        Raises:
            DataError: an input does not exist, or a folder holds no files.
        """
        if isinstance(inputs, str | Path):
            inputs = [inputs]
        if not inputs:
            raise DataError("No input was named.", hint="Name files, folders or “shakespeare”.")
        self.column = column
        self.on_error = on_error
        self.report = ReadingReport()
        self._inputs = [found for name in inputs for found in _find(name)]

    def __iter__(self) -> Iterator[Document]:
        """Yield the documents; see `Document` for those too big to come whole.

        Raises:
            DataError: something cannot be read (and `on_error` is `stop`), or there is no text.
        """
        self.report = report = ReadingReport()
        for item in self._inputs:
            for document in self._read(item):
                report.documents += not document.continued
                yield document
        if not report.documents:
            left_out = f" ({report.skipped} rows or files were left out)" if report.skipped else ""
            first = f" The first problem: {report.problems[0]}" if report.problems else ""
            raise DataError(f"The input holds no text{left_out}.{first}")

    def fingerprint(self) -> str:
        """Return the SHA-256 of all that decides the documents: contents, column, error rule."""
        digest = hashlib.sha256(f"1\0{self.column}\0{self.on_error}\0".encode())
        for item in self._inputs:
            if item.path is None:
                for document in SHIPPED[item.name]():
                    digest.update(hashlib.sha256(document.text.encode("utf-8")).digest())
            else:
                digest.update(f"{item.path.suffixes[-2:]}\0{sha256_file(item.path)}\0".encode())
        return digest.hexdigest()

    def _read(self, item: _Input) -> Iterator[Document]:
        if item.path is None:
            yield from SHIPPED[item.name]()
            return
        if not item.named and item.path.stat().st_size == 0:
            self.report.empty_files += 1
            return
        try:
            yield from self._read_file(item.path)
        except ColumnError:
            raise
        except DataError as error:
            if self.on_error == "stop":
                raise DataError(error.message, hint=error.hint or _HOW_TO_SKIP) from error
            self.report.add(error.message)

    def _read_file(self, path: Path) -> Iterator[Document]:
        reader = READERS.get(_content_suffix(path))
        if reader is None:
            if self.on_error == "skip":
                for _ in read_text(path):  # a fault at the end must not leave half a document
                    pass
            for number, piece in enumerate(read_text(path)):
                yield Document(str(path), piece, continued=number > 0)
            return
        for row in reader(path, self.column):
            if isinstance(row, Document):
                yield row
            elif self.on_error == "stop":
                raise DataError(f"{row.place}: {row.problem}.", hint=_HOW_TO_SKIP)
            else:
                self.report.add(f"{row.place}: {row.problem}")


_HOW_TO_SKIP = "Mend it, or leave such rows and files out: --on-error skip (data.on_error=skip)."


def read_documents(
    inputs: Sequence[str | Path], column: str | None = None, on_error: OnError = "stop"
) -> Iterator[Document]:
    """Yield the documents of files, folders and shipped corpora once; see `Sources`.

    Raises:
        DataError: an input does not exist or cannot be used.
    """
    return iter(Sources(inputs, column, on_error))


def texts_of(documents: Iterable[Document]) -> Iterable[str]:
    """Return the texts of documents as an iterable that can be read as often as they can."""
    return _Texts(documents)


class _Texts:
    def __init__(self, documents: Iterable[Document]) -> None:
        self._documents = documents

    def __iter__(self) -> Iterator[str]:
        for document in self._documents:
            yield document.text


def _find(name: str | Path) -> list[_Input]:
    """Return the files that one input means."""
    path = Path(name)
    if str(name) in SHIPPED and not path.exists():
        return [_Input(str(name), None, True)]
    if path.is_dir():
        if (path / "manifest.json").is_file() and (path / "tokenizer.json").is_file():
            raise DataError(
                f"{path} is a token store already, not text.",
                hint=f"Train on it with data.store={path}; look into it with "
                f"coterie data inspect {path}",
            )
        files = [_Input(str(file), file, False) for file in _files_below(path)]
        if not files:
            raise DataError(f"The folder {path} holds no files.")
        return files
    if path.is_file():
        return [_Input(str(path), path, True)]
    if path.exists():
        raise DataError(f"{path} is neither a file nor a folder.")
    raise DataError(f"There is no input “{name}”; {_nearest_input(path)}")


def _files_below(folder: Path) -> list[Path]:
    """Return all files below a folder in order of their paths, hidden ones left out."""

    def shown(path: Path) -> bool:
        parts = path.relative_to(folder).parts
        return not any(part.startswith(".") or part in _IGNORED_FOLDERS for part in parts)

    files = (path for path in folder.rglob("*") if path.is_file() and shown(path))
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


def _nearest_input(path: Path) -> str:
    """Return a phrase with what stands beside the missing path, and the shipped corpora."""
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    shown = [name for name in beside if not name.startswith(".")]
    return nearest(path.name, [*shown, *SHIPPED])


def _content_suffix(path: Path) -> str:
    """Return the ending that says what a file holds, the compression's own left aside."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""
