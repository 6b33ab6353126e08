"""Messy texts to a folder of clean ones, with an account of every line that is not in them.

OUT/texts/NAME.txt       the cleaned texts
OUT/report.jsonl         one row per piece: file, line, what became of it, why, its text
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from coterie.data.documents import Document, whole_documents
from coterie.data.split import OnProgress
from coterie.foundation.errors import DataError
from coterie.foundation.files import atomic_directory, write_text_atomic
from coterie.language.drama.cleaning import Kind, Tags, clean_text

TEXTS, REPORT = "texts", "report.jsonl"
_LISTED = 1000


@dataclass
class CleaningReport:
    """What came of cleaning.

    Attributes:
        kinds: how many texts were taken for a play, a poem or a book.
        counts: how many pieces were unrecognised, removed or rewritten.
        unrecognised: the first thousand unrecognised ones, with file and line.
        characters: read and written.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    unrecognised: list[str] = field(default_factory=list)
    characters: tuple[int, int] = (0, 0)


def clean_documents(
    documents: Iterable[Document],
    out: Path | str,
    *,
    kind: Kind = "auto",
    tags: Tags = "full",
    report: Path | str | None = None,
    progress: OnProgress | None = None,
) -> CleaningReport:
    """Write each document cleaned into a new folder; each must fit in memory.

    Args:
        documents: the texts; their names become those of the files.
        out: the folder to make; it appears only when it is complete.
        kind, tags: see `language.drama.cleaning.clean_text`.
        report: a file for the account, `report.jsonl` in the folder by default.
        progress: called with the stage, characters done, and None.

    Raises:
        DataError: a document cannot be read, nothing is left of it, or two have the same name.
        UserError: `out` or `report` exists, or cannot be written.
    """
    told = CleaningReport()
    names: dict[str, str] = {}
    rows: list[str] = []
    with atomic_directory(out) as folder:
        (folder / TEXTS).mkdir()
        for document in whole_documents(documents):
            name = _file_name(document.name)
            if name.lower() in names:
                raise DataError(
                    f"{document.name} and {names[name.lower()]} would both become {name}.",
                    hint="Clean them into two folders, or rename one.",
                )
            names[name.lower()] = document.name
            found = clean_text(document.text, kind, tags)
            if not found.text.strip():
                raise DataError(f"{document.name}: nothing but licence and marks is in it.")
            (folder / TEXTS / name).write_text(found.text, "utf-8")
            told.kinds[found.kind] += 1
            read, written = told.characters
            told.characters = (read + len(document.text), written + len(found.text))
            for what, piece in found.account():
                told.counts[what] += 1
                row = {"file": document.name, "line": piece.line, "what": what}
                rows.append(json.dumps(row | {"reason": piece.reason, "text": piece.text}))
                if what == "unrecognised" and len(told.unrecognised) < _LISTED:
                    told.unrecognised.append(
                        f"{document.name}:{piece.line}: {piece.reason}: {piece.text[:80]!r}"
                    )
            if progress:
                progress("cleaning", told.characters[0], None)
        account = "".join(row + "\n" for row in rows)
        if report is None:
            (folder / REPORT).write_text(account, "utf-8")
        else:
            write_text_atomic(report, account, replace=False)
    return told


def _file_name(name: str) -> str:
    """Return the name of a file for a document, which is called by a path or a row of one."""
    stem = re.sub(
        r"(\.(txt|md|gz|xz|bz2|zst|jsonl|csv|tsv|parquet))+(?=$|[:#])", "", Path(name).name
    )
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.") + ".txt"
