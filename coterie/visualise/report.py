"""Writes a run's report, or a comparison of several, as one HTML file that works offline."""

from collections.abc import Sequence
from pathlib import Path

from coterie.foundation.errors import UserError
from coterie.foundation.files import write_text_atomic
from coterie.foundation.runs import RunDirectory
from coterie.visualise.compare import comparison
from coterie.visualise.page import document
from coterie.visualise.sections.experts import EXPERTS
from coterie.visualise.sections.header import header
from coterie.visualise.sections.record import CONFIGURATION, DATA, RECORD, SAMPLES
from coterie.visualise.sections.reinforcement import REINFORCEMENT
from coterie.visualise.sections.routing import ROUTING
from coterie.visualise.sections.section import added_html, added_reducers
from coterie.visualise.sections.training import LOSS, MEMORY, OPTIMIZER, PROCESSES
from coterie.visualise.sections.uses import TITLE, uses_section
from coterie.visualise.series import Series, read_series

_FIRST = (LOSS, REINFORCEMENT, SAMPLES, EXPERTS, ROUTING, OPTIMIZER, MEMORY, PROCESSES)
_LAST = (DATA, RECORD, CONFIGURATION)


def write_report(run: RunDirectory, out: Path | str | None = None) -> Path:
    """Write one run's page and return where; by default `report.html` in the run's directory.

    Raises:
        RunError: the run has recorded nothing yet.
        UserError: the place cannot be written, or the disk is full.
    """
    page = report_page(read_series(run, added_reducers()), uses_section(run))
    return _write(Path(out) if out else run.report, page)


def write_comparison(runs: Sequence[RunDirectory], out: Path | str | None = None) -> Path:
    """Write a page that compares runs and return where; by default beside the first run.

    Raises:
        RunError: a run has recorded nothing yet.
        UserError: the place cannot be written, or the disk is full.
    """
    place = Path(out) if out else runs[0].path.parent / "comparison.html"
    return _write(place, comparison([read_series(run) for run in runs]))


def report_page(series: Series, uses: str = "") -> str:
    """Return a run's page; `uses` is the section on what its experts are used for, HTML."""
    first = [(each.anchor, each.title, each.html(series)) for each in _FIRST]
    last = [(each.anchor, each.title, each.html(series)) for each in _LAST]
    sections = [*first, ("uses", TITLE, uses), *added_html(series), *last]
    return document(f"{series.name} · Coterie", header(series), sections)


def _write(place: Path, text: str) -> Path:
    if place.is_dir():
        raise UserError(
            f"{place} is a folder; a report is one file.",
            hint=f"Name the file: --out {place / 'report.html'}",
        )
    write_text_atomic(place, text)
    return place
