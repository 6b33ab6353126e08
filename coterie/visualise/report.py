"""Writes a run's report, or a comparison of several, as one HTML file that works offline."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from coterie.foundation.errors import UserError
from coterie.foundation.files import write_text_atomic
from coterie.foundation.printable import printable
from coterie.foundation.runs import RunDirectory
from coterie.visualise.compare import comparison
from coterie.visualise.page import document
from coterie.visualise.sections.configuration import CONFIGURATION
from coterie.visualise.sections.experts import EXPERTS
from coterie.visualise.sections.header import header
from coterie.visualise.sections.loss import LOSS
from coterie.visualise.sections.optimizer import OPTIMIZER
from coterie.visualise.sections.record import RECORD
from coterie.visualise.sections.samples import SAMPLES
from coterie.visualise.sections.section import Section, added_sections
from coterie.visualise.series import Series, read_series

_FIRST = (LOSS, SAMPLES, EXPERTS, OPTIMIZER)
_LAST = (RECORD, CONFIGURATION)


def write_report(run: RunDirectory, out: Path | str | None = None) -> Path:
    """Write one run's page and return where; by default `report.html` in the run's directory.

    Raises:
        RunError: the run has recorded nothing yet.
        UserError: the place cannot be written, or the disk is full.
    """
    return _write(Path(out) if out else run.report, report_page(_read(run)))


def write_comparison(runs: Sequence[RunDirectory], out: Path | str | None = None) -> Path:
    """Write a page that compares runs and return where; by default beside the first run.

    Raises:
        RunError: a run has recorded nothing yet.
        UserError: the place cannot be written, or the disk is full.
    """
    place = Path(out) if out else runs[0].path.parent / "comparison.html"
    return _write(place, comparison([read_series(run) for run in runs]))


def report_page(series: Series) -> str:
    """Return one run's page as HTML."""
    added = [(each.anchor, each.title, _shielded(each, series)) for each in added_sections()]
    first = [(each.anchor, each.title, each.html(series)) for each in _FIRST]
    last = [(each.anchor, each.title, each.html(series)) for each in _LAST]
    return document(f"{series.name} · Coterie", header(series), [*first, *added, *last])


def _shielded(section: Section, series: Series) -> str:
    """Return a section from outside the package; if it fails, a sentence that says how."""
    try:
        for reducer in section.reads:
            if reducer in series.failures:
                raise series.failures[reducer]
        return section.html(series)
    except Exception as error:
        text = f"This section could not be made: {type(error).__name__}: {error}"
        return f'<p class="note">{escape(printable(text))}</p>'


def _read(run: RunDirectory) -> Series:
    """Read a run with what the added sections look at."""
    guests = [reducer for section in added_sections() for reducer in section.reads]
    return read_series(run, guests)


def _write(place: Path, text: str) -> Path:
    if place.is_dir():
        raise UserError(
            f"{place} is a folder; a report is one file.",
            hint=f"Name the file: --out {place / 'report.html'}",
        )
    write_text_atomic(place, text)
    return place
