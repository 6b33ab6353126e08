"""What the user names as input, as a stream of documents that can be read more than once.

An input is a file, a folder (read recursively, in order of names), a pattern of files, a place that
`git` or `remote` reads, or the word `shakespeare` for the corpus that is shipped. Text files are
one document each; tables one per row.
"""

from __future__ import annotations

import copy
import glob
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from coterie.data.clean import Clean, cleaned
from coterie.data.corpus import shakespeare
from coterie.data.documents import Document
from coterie.data.git import GitSource
from coterie.data.jsonl import read_jsonl
from coterie.data.kinds import Content, kind_of
from coterie.data.parquet import read_arrow, read_parquet, row_groups
from coterie.data.reading import OnError, Reading, Tell
from coterie.data.remote import HubSource, fetched, files_at, is_url
from coterie.data.report import ReadingReport
from coterie.data.separated import read_separated
from coterie.data.tables import ColumnError, Rows
from coterie.data.text import read_text
from coterie.data.unpack import MAX_EXPANSION, unreadable
from coterie.data.walk import Found, files_below
from coterie.foundation.errors import DataError, nearest
from coterie.foundation.files import sha256_file
from coterie.tokenizer.cuts import last_cut

SHIPPED = {"shakespeare": shakespeare}
SCHEMES: dict[str, Callable[[str], RowSource]] = {"git": GitSource, "hf": HubSource}
READERS: dict[Content, Callable[[Path, Reading, Tell], Rows]] = {
    "jsonl": read_jsonl,
    "separated": read_separated,
    "parquet": read_parquet,
    "arrow": read_arrow,
}
_SAVED = {"state.json", "dataset_info.json", "dataset_dict.json"}  # beside a data set's Arrow files
_SAMPLE = 1 << 16  # bytes
_NAMED_APART = 16  # files; of more, which a shell may have found, the folder is the source
HOW_TO_SKIP = "Mend it, or leave such rows and files out: --on-error skip (data.on_error=skip)."


class RowSource(Protocol):
    """What gives documents without being a file."""

    @property
    def identity(self) -> str:
        """Equal ones give equal documents."""
        ...

    def rows(self, reading: Reading, tell: Tell) -> Rows:
        """Yield documents, and rows that cannot be used."""
        ...


@dataclass(frozen=True)
class _Input:
    """One file, shipped corpus or other source to read.

    `named` says that the user named the file itself, `origin` what was named; of a Parquet file one
    row group, the `section`, may be meant alone.
    """

    name: str
    path: Path | None
    named: bool
    origin: str = ""
    other: RowSource | None = None
    section: int | None = None

    def sections(self) -> list[_Input]:
        """Return the parts that can be read without what comes before them."""
        groups = None if self.path is None else row_groups(self.path)
        return [self] if groups is None else [replace(self, section=n) for n in range(groups)]

    def known(self) -> tuple[str, int, str]:
        """Return the name, the bytes, and a hash of samples of a file: its ends and its middle."""
        if self.path is None:
            whole = self.name if self.other is None else self.other.identity
            return self.name, 0, hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()
        digest = hashlib.sha256()
        with open(self.path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            for begin in (0, size // 2, max(size - _SAMPLE, 0)):
                file.seek(begin)
                digest.update(file.read(_SAMPLE))
        return self.name, size, digest.hexdigest()


class Sources:
    """The documents of all inputs, in order; every iteration reads them afresh.

    Attributes:
        report: how the latest iteration went (or goes).
    """

    def __init__(
        self,
        inputs: Sequence[str | Path] | str | Path,
        column: str | None = None,
        on_error: OnError = "stop",
        *,
        delimiter: str | None = None,
        header: bool = True,
        max_expansion: int = MAX_EXPANSION,
        template: str | None = None,
        clean: Sequence[Clean] = (),
    ) -> None:
        """Find the files.

        Args:
            inputs: files, folders, patterns (`novels/**/*.md`), URLs that fsspec knows,
                `git:REPOSITORY`, `hf:DATASET`, or names of shipped corpora.
            column: which column of tables holds the text; by default `text` or the only one.
            on_error: whether a row or file that cannot be used stops the reading or is left out.
            delimiter, header, max_expansion, template: see `Reading`.
            clean: what documents go through as they are read, in this order.

        Raises:
            DataError: an input does not exist, a folder holds no files, or something below one
                cannot be read (and `on_error` is `stop`).
        """
        if isinstance(inputs, str | Path):
            inputs = [inputs]
        if not inputs:
            raise DataError("No input was named.", hint="Name files, folders or “shakespeare”.")
        self.reading = Reading(column, on_error, delimiter, header, max_expansion, template)
        self.clean = tuple(clean)
        self._cleaners = [each.build() for each in self.clean]
        self._inputs: list[_Input] = []
        self._found: list[Found] = []
        for name in inputs:
            self._find(name)
        if sum(item.named for item in self._inputs) > _NAMED_APART:
            self._inputs = [
                replace(item, origin=str(item.path.parent)) if item.named and item.path else item
                for item in self._inputs
            ]
        self.report = self._begin_report()
        self._seen: dict[Path, _State] = {}

    def __iter__(self) -> Iterator[Document]:
        """Yield the documents; see `Document` for those too big to come whole.

        Raises:
            DataError: something cannot be read (and `on_error` is `stop`), changed since its
                fingerprint was taken, or there is no text.
        """
        self.report = report = self._begin_report()
        documents = itertools.chain.from_iterable(self._of(item) for item in self._inputs)
        if self._cleaners:
            documents = cleaned(documents, self._cleaners, self._note_left_out)
        for document in documents:
            report.documents += not document.continued
            yield document
        if not report.documents:
            left_out = f" ({report.skipped} rows or files were left out)" if report.skipped else ""
            first = f" The first problem: {report.problems[0]}" if report.problems else ""
            raise DataError(f"The input holds no text{left_out}.{first}")

    @property
    def empty(self) -> bool:
        """Whether there is nothing to read."""
        return not self._inputs

    @property
    def origins(self) -> tuple[str, ...]:
        """What the user named, in order."""
        return tuple(dict.fromkeys(item.origin for item in self._inputs))

    def part(self, number: int, parts: int) -> Sources:
        """Return one part of the files, consecutive ones of about equal size in all."""
        mine = copy.copy(self)
        sizes = [os.path.getsize(item.path) if item.path else 1 for item in self._inputs]
        middles = [
            end - size / 2 for end, size in zip(itertools.accumulate(sizes), sizes, strict=True)
        ]
        whole = sum(sizes) or 1
        places = [int(parts * middle / whole) + 1 for middle in middles]
        mine._inputs = [item for item, at in zip(self._inputs, places, strict=True) if at == number]
        if number > 1:
            mine._found = []  # what is to be said of the folders, the first part says
        mine.report = mine._begin_report()
        return mine

    @property
    def names(self) -> list[str]:
        """What each input is called."""
        return [item.name for item in self._inputs]

    def sections(
        self, number: int = 0, section: int = 0
    ) -> Iterator[tuple[int, int, Iterator[Document]]]:
        """Yield the parts of inputs that can be read alone, from one on, with their documents.

        Raises:
            DataError: as when they are iterated.
        """
        self.report = self._begin_report()
        for at in range(number, len(self._inputs)):
            for each, item in enumerate(self._inputs[at].sections()):
                if (at, each) >= (number, section):
                    documents = self._of(item)
                    if self._cleaners:
                        documents = cleaned(documents, self._cleaners, self._note_left_out)
                    yield at, each, documents

    def known(self) -> list[tuple[str, int, str]]:
        """Return of each input its name, its bytes and a hash of samples: three of 64 KiB.

        From then on the files must stay as they are.

        Raises:
            DataError: a file cannot be read.
        """
        found = []
        for item in self._inputs:
            try:
                if item.path is not None:
                    self._seen[item.path] = _state(item.path)
                found.append(item.known())
            except OSError as error:
                raise unreadable(item.path or item.name, error) from error
        return found

    def fingerprint(self) -> str:
        """Return the SHA-256 of all that decides the documents: contents and how they are read.

        From then on the files must stay as they are.

        Raises:
            DataError: a file cannot be read, and `on_error` is `stop`.
        """
        digest = hashlib.sha256(f"2\0{self.reading.identity}\0".encode("utf-8", "surrogatepass"))
        for each in self.clean:
            settings = json.dumps(each.model_dump(mode="json"), sort_keys=True)
            digest.update(f"clean\0{settings}\0".encode())
        for item in self._inputs:
            if item.other is not None:
                digest.update(f"{item.other.identity}\0".encode())
                continue
            if item.path is None:
                for document in SHIPPED[item.name]():
                    digest.update(hashlib.sha256(document.text.encode("utf-8")).digest())
                continue
            try:
                self._seen[item.path] = _state(item.path)
                content = sha256_file(item.path)
            except OSError as error:
                if self.reading.on_error == "stop":
                    raise _stopped(unreadable(item.path, error)) from error
                content = "unreadable"
            digest.update(f"{kind_of(item.path)}\0{content}\0".encode())
        return digest.hexdigest()

    def _note_left_out(self, document: Document) -> None:
        self.report.note("holds documents that cleaning left out", document.source)

    def _begin_report(self) -> ReadingReport:
        report = ReadingReport()
        for found in self._found:
            for path, problem in found.problems:
                report.add(problem, path)
            for path in found.hidden:
                report.note("passed over, being hidden", path)
            for path, where in found.repeated:
                report.note(f"passed over, being the same folder as {where}", path)
        return report

    def _find(self, name: str | Path) -> None:
        """Take up the files that one input means."""
        path = Path(name)
        scheme, _, given = str(name).partition(":")
        try:
            if is_url(str(name)):
                for url in files_at(str(name)):
                    self._inputs.append(_Input(url, fetched(url), False, str(name)))
                return
            if scheme in SCHEMES and given and not path.exists():
                other = SCHEMES[scheme](given)
                self._inputs.append(_Input(str(name), None, False, str(name), other))
                return
            if str(name) in SHIPPED and not path.exists():
                self._inputs.append(_Input(str(name), None, True, str(name)))
            elif path.is_dir():
                self._find_below(path)
            elif path.is_file():
                self._inputs.append(_Input(str(path), path, True, str(name)))
            elif path.exists():
                raise DataError(f"{path} is neither a file nor a folder.")
            elif glob.has_magic(str(name)):
                self._find_pattern(str(name))
            else:
                raise DataError(f"There is no input “{name}”; {_nearest_input(path)}")
        except OSError as error:  # a folder above that may not be entered, a name too long
            raise unreadable(path, error) from error

    def _find_pattern(self, pattern: str) -> None:
        """Take up the files that a pattern means; hidden ones only where it says so.

        Raises:
            DataError: there are none.
        """
        found = sorted(filter(os.path.isfile, glob.glob(pattern, recursive=True)))
        if not found:
            raise DataError(
                f"No file fits the pattern “{pattern}”.",
                hint="“**” means folders at any depth: 'novels/**/*.md'.",
            )
        self._inputs += [_Input(each, Path(each), False, pattern) for each in found]

    def _find_below(self, folder: Path) -> None:
        """Take up the files of a folder and what is to be said about it.

        Raises:
            DataError: it is a store, holds no files, or something in it cannot be read.
        """
        if (folder / "manifest.json").is_file() and (folder / "tokenizer.json").is_file():
            raise DataError(
                f"{folder} is a token store already, not text.",
                hint=f"Train on it with data.store={folder}; look into it with "
                f"coterie data inspect {folder}",
            )
        found = files_below(folder)
        if found.problems and self.reading.on_error == "stop":
            more = f" ({len(found.problems)} such in all)" if len(found.problems) > 1 else ""
            raise DataError(found.problems[0][1] + more, hint=HOW_TO_SKIP)
        if not found.files:
            why = f" that can be read: {found.problems[0][1]}" if found.problems else "."
            raise DataError(f"The folder {folder} holds no files{why}")
        self._found.append(found)
        saved = {file.parent for file in found.files if file.suffix == ".arrow"}
        saved |= {folder.parent for folder in saved}
        found.files = [f for f in found.files if not (f.name in _SAVED and f.parent in saved)]
        self._inputs += [_Input(str(file), file, False, str(folder)) for file in found.files]

    def _of(self, item: _Input) -> Iterator[Document]:
        """Yield the documents of one file, marked with the input that it belongs to."""
        for document in self._read(item):
            yield document if document.origin else replace(document, origin=item.origin)

    def _read(self, item: _Input) -> Iterator[Document]:
        if item.other is not None:
            tell = partial(self.report.note, path=item.name)
            yield from self._sorted_out(item.other.rows(self.reading, tell), item.name)
            return
        if item.path is None:
            yield from SHIPPED[item.name]()
            return
        try:
            state = _state(item.path)
            _refuse_change(item.path, self._seen.get(item.path, state), state)
            if not item.named and not state.size:
                self.report.empty_files += 1
                return
            yield from self._read_file(item.path, item.origin, item.section)
            _refuse_change(item.path, state, _state(item.path))
        except _ChangedError:
            raise
        except (DataError, OSError) as error:
            if isinstance(error, OSError):
                error = unreadable(item.path, error)
            # A column that the user named and that the named file lacks is no matter of a row.
            if self.reading.on_error == "stop" or (isinstance(error, ColumnError) and item.named):
                raise _stopped(error) from error
            self.report.add(error.message, item.path)

    def _read_file(self, path: Path, origin: str, section: int | None = None) -> Iterator[Document]:
        reading = self.reading
        reader = READERS.get(kind_of(path).content)
        if section is not None:
            reader = partial(read_parquet, group=section)
        if reader is None:
            name, pieces = str(path), read_text(path, reading.max_expansion)
            if reading.on_error == "skip":
                begun = list(itertools.islice(pieces, 2))
                for _ in pieces:
                    pass  # a fault at the end must not leave half a document
                whole = len(begun) < 2
                pieces = iter(begun) if whole else read_text(path, reading.max_expansion)
            for number, piece in enumerate(pieces):
                yield Document(name, piece, number > 0, name, origin=origin)
            return
        tell = partial(self.report.note, path=path)
        yield from self._sorted_out(reader(path, reading, tell), path)

    def _sorted_out(self, rows: Rows, path: Path | str) -> Iterator[Document]:
        """Yield the documents among rows; the others stop the reading, or are reported."""
        for row in rows:
            if isinstance(row, Document):
                yield row
            elif self.reading.on_error == "stop":
                raise DataError(f"{row.place}: {row.problem}.", hint=HOW_TO_SKIP)
            else:
                self.report.add(f"{row.place}: {row.problem}", path)


class _ChangedError(DataError):
    """A file that did not stay as it was while it was read."""


def _stopped(error: DataError) -> DataError:
    """Return an error that also says how to go on without what is at fault."""
    if isinstance(error, ColumnError):
        return error
    return DataError(error.message, hint=error.hint or HOW_TO_SKIP)


class _State(NamedTuple):
    """What changes when a file does."""

    device: int
    number: int
    size: int
    modified: int


def _state(path: Path) -> _State:
    status = os.stat(path)
    return _State(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _refuse_change(path: Path, before: _State, now: _State) -> None:
    if before != now:
        raise _ChangedError(
            f"{path} changed while it was read.", hint="Run the same command again."
        )


def read_documents(
    inputs: Sequence[str | Path],
    column: str | None = None,
    on_error: OnError = "stop",
    **options: Any,
) -> Iterator[Document]:
    """Yield the documents of files, folders and shipped corpora once; see `Sources`.

    Raises:
        DataError: an input does not exist or cannot be used.
    """
    return iter(Sources(inputs, column, on_error, **options))


def texts_of(documents: Iterable[Document]) -> Iterable[str]:
    """Return the texts of documents as an iterable that can be read as often as they can.

    Those too big to come whole come in pieces, cut between words where there are such near.
    """
    return _Texts(documents)


class _Texts:
    def __init__(self, documents: Iterable[Document]) -> None:
        self._documents = documents

    def __iter__(self) -> Iterator[str]:
        rest = ""
        for document in self._documents:
            if document.continued:
                place = last_cut(rest, len(rest)) or len(rest)
                if place:
                    yield rest[:place]
                rest = rest[place:] + document.text
                continue
            if rest:
                yield rest
            rest = document.text
        if rest:
            yield rest


def _nearest_input(path: Path) -> str:
    """Return a phrase with what stands beside the missing path, and the shipped corpora."""
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    shown = [name for name in beside if not name.startswith(".")]
    return nearest(path.name, [*shown, *SHIPPED])
