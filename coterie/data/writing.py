"""Documents out of memory again: a folder of texts, or a table of one row per document."""

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow
from pyarrow import parquet

from coterie.data.documents import Document, in_batches
from coterie.data.kinds import Content, kind_of
from coterie.foundation.errors import DataError, UserError
from coterie.foundation.files import atomic_directory, atomic_file, own_file

_COLUMNS = ("text", "name", "source", "language")


def write_documents(documents: Iterable[Document], out: Path | str) -> None:
    """Write whole documents; what `out` is called says how.

    Args:
        documents: none in pieces.
        out: `….jsonl` or `….parquet` for a table with the columns text, name, source and language;
            else the folder to make, with a file for each. It appears only when it is complete.

    Raises:
        DataError: two documents would have the same file in a folder.
        UserError: `out` exists, is to be a table of another kind, or cannot be written.
    """
    kind = kind_of(out)
    if kind.content == "text" and not kind.packings:
        with atomic_directory(out) as folder:
            texts = TextFolder(folder)
            for document in documents:
                texts.add(document.name, document.text)
        return
    write = _TABLES.get(kind.content)
    if write is None or kind.packings:
        raise UserError(
            f"{out} is no kind of file that documents are written to.",
            hint="Call it ….jsonl or ….parquet; a name without an ending is a folder of texts.",
        )
    with atomic_file(out, replace=False) as partial:
        write(documents, partial)


def _write_jsonl(documents: Iterable[Document], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for document in documents:
            file.write(json.dumps(_row(document), ensure_ascii=False) + "\n")


def _write_parquet(documents: Iterable[Document], path: Path) -> None:
    schema = pyarrow.schema([(name, pyarrow.large_string()) for name in _COLUMNS])
    with parquet.ParquetWriter(
        path, schema, compression="zstd", write_page_checksum=True
    ) as writer:
        for batch in in_batches(documents):
            rows = [_row(document) for document in batch]
            writer.write_table(pyarrow.Table.from_pylist(rows, schema))


_TABLES: dict[Content, Callable[[Iterable[Document], Path], None]] = {
    "jsonl": _write_jsonl,
    "parquet": _write_parquet,
}


def _row(document: Document) -> dict[str, str | None]:
    return {name: getattr(document, name) for name in _COLUMNS}


@contextlib.contextmanager
def report_file(report: Path | str | None, out: Path | str | None = None) -> Iterator[Path | None]:
    """Yield a file that becomes the report if the block ends well; None where none is wanted.

    Args:
        report: where it goes; nothing may stand there.
        out: what else is being made, which must not hold it.

    Raises:
        UserError: it would be inside `out`, something stands there, or it cannot be written.
    """
    if report is None:
        yield None
    elif out is not None and Path(report).resolve().is_relative_to(Path(out).resolve()):
        raise UserError(f"{report} would be inside {out}, which is being made.")
    else:
        with (
            own_file(report, "writing a report", replace=False),
            atomic_file(report, replace=False) as partial,
        ):
            yield partial


class TextFolder:
    """A folder that gets a text file for each document, called as the document is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._documents: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._documents)

    def add(self, name: str, text: str) -> str:
        """Write a document; return the name of its file.

        Raises:
            DataError: another document has that file.
        """
        file = _file_name(name)
        if other := self._documents.get(file.lower()):
            raise DataError(
                f"{name} and {other} would both become {file}.",
                hint="Write them into two folders, into one table (--out FILE.jsonl) where that "
                "can be, or rename one.",
            )
        self._documents[file.lower()] = name
        (self.folder / file).write_text(text, "utf-8")
        return file


def _file_name(name: str) -> str:
    """Return the name of a file for a document, which is called by a path or a row of one."""
    stem = re.sub(
        r"(\.(txt|md|gz|xz|bz2|zst|jsonl|csv|tsv|parquet))+(?=$|[:#])", "", Path(name).name
    )
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.") + ".txt"
