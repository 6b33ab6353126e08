"""Messy texts to a folder of clean ones, with an account of every line that is not in them.

OUT/texts/NAME.txt       the cleaned texts
OUT/original/NAME.txt    the same in the spelling of the source, where another was asked for
OUT/report.jsonl         one row per piece: file, line, what became of it, why, its text
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from coterie.data.documents import Document, too_large, whole_documents
from coterie.data.report import ReadingReport
from coterie.data.sources import HOW_TO_SKIP, Sources
from coterie.data.split import OnProgress
from coterie.data.writing import TextFolder, report_file
from coterie.foundation.errors import DataError
from coterie.foundation.files import atomic_directory
from coterie.foundation.printable import printable
from coterie.language.drama.cleaning import Cleaned, Kind, Tags, clean_text
from coterie.language.drama.works import Work, divided
from coterie.language.spelling import Spelling, respell

Works = Literal["one", "several"]

TEXTS, ORIGINAL, REPORT = "texts", "original", "report.jsonl"
_LISTED = 1000


@dataclass
class CleaningReport:
    """What came of cleaning.

    Attributes:
        kinds: how many texts were taken for a play, a poem or a book.
        counts: how many pieces were unrecognised, removed or rewritten.
        unrecognised: the first thousand unrecognised ones, with file and line.
        characters: read and written.
        reading: what was left out, as `on_error` is `skip`.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    unrecognised: list[str] = field(default_factory=list)
    characters: tuple[int, int] = (0, 0)
    reading: ReadingReport = field(default_factory=ReadingReport)


def clean_documents(
    sources: Sources,
    out: Path | str,
    *,
    kind: Kind = "auto",
    tags: Tags = "full",
    spelling: Spelling | None = None,
    report: Path | str | None = None,
    works: Works = "one",
    progress: OnProgress | None = None,
) -> CleaningReport:
    """Write each document cleaned into a new folder; each must fit in memory.

    Args:
        sources: the texts; their names become those of the files.
        out: the folder to make; it appears only when it is complete.
        kind, tags: see `language.drama.cleaning.clean_text`.
        spelling: how words are spelled; the texts as they were stand beside, line by line.
        report: a file for the account, `report.jsonl` in the folder by default.
        works: whether a document may hold `several`, each of which then becomes a text.
        progress: called with the stage, characters done, and None.

    Raises:
        DataError: a document cannot be read or nothing is left of it (and `on_error` is `stop`),
            nothing is left of any, or two have the same name.
        UserError: `out` or `report` exists, or cannot be written.
    """
    told = CleaningReport()
    with report_file(report, out) as apart, atomic_directory(out) as folder:
        for name in (TEXTS, ORIGINAL) if spelling else (TEXTS,):
            (folder / name).mkdir()
        texts, originals = TextFolder(folder / TEXTS), TextFolder(folder / ORIGINAL)
        with (apart or folder / REPORT).open("w", encoding="utf-8") as account:
            for document, work in _works(sources, works):
                try:
                    found = clean_text(work.text, kind, tags)
                except MemoryError as error:
                    raise too_large(document.name) from error
                if not found.text.strip():
                    _leave_out(document, sources)
                    continue
                if spelling:
                    originals.add(document.name, found.text)
                    found = found._replace(text=respell(found.text, spelling))
                texts.add(document.name, found.text)
                told.kinds[found.kind] += 1
                read, written = told.characters
                told.characters = (read + len(work.text), written + len(found.text))
                for row in _rows(found, document.name, told, work):
                    account.write(json.dumps(row) + "\n")
                if progress:
                    progress("cleaning", told.characters[0], None)
        told.reading = sources.report
        if not len(texts):
            raise DataError(f"No text is left. The first problem: {told.reading.problems[0]}")
    return told


def _works(sources: Sources, works: Works) -> Iterator[tuple[Document, Work]]:
    """Yield the works in documents, each with a document of its name; of one: the document's."""
    for document in whole_documents(sources):
        found = divided(document.text) if works == "several" else [Work("", 1, document.text)]
        for number, work in enumerate(found, start=1):
            name = f"{document.name}#{number:02d}-{work.title}" if len(found) > 1 else document.name
            yield replace(document, name=name), work


def _rows(found: Cleaned, name: str, told: CleaningReport, work: Work) -> Iterator[dict[str, Any]]:
    """Yield the account of a text as rows of the report, and count them."""
    beside = [("removed", piece) for piece in work.told]
    beside += [("unrecognised", piece) for piece in work.missed]
    within = [(what, replace(piece, line=piece.line + work.line - 1))
              for what, piece in found.account()]  # fmt: skip
    for what, piece in (*beside, *within):
        told.counts[what] += 1
        if what == "unrecognised" and len(told.unrecognised) < _LISTED:
            where = f"{printable(name, keep='')}:{piece.line}"
            told.unrecognised.append(f"{where}: {piece.reason}: {piece.text[:80]!r}")
        row = {"file": name, "line": piece.line, "what": what}
        yield row | {"reason": piece.reason, "text": piece.text}


def _leave_out(document: Document, sources: Sources) -> None:
    """Note a document of which nothing is left, or refuse it."""
    problem = f"{document.name}: nothing but licence and marks is in it"
    if sources.reading.on_error == "stop":
        raise DataError(f"{problem}.", hint=HOW_TO_SKIP)
    sources.report.add(problem, document.source)
