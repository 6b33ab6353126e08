"""Writes a run's report, or a comparison of several, as one HTML file that works offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from coterie.foundation.errors import UserError
from coterie.foundation.files import write_text_atomic
from coterie.foundation.runs import RunDirectory
from coterie.visualise.compare import comparison
from coterie.visualise.page import document
from coterie.visualise.sections import (
    configuration_section,
    experts_section,
    header,
    loss_section,
    optimizer_section,
    record_section,
    samples_section,
)
from coterie.visualise.series import Series, read_series


def write_report(run: RunDirectory, out: Path | str | None = None) -> Path:
    """Write one run's page and return where; by default `report.html` in the run's directory.

    Raises:
        RunError: the run has recorded nothing yet.
        UserError: the place cannot be written, or the disk is full.
    """
    return _write(Path(out) if out else run.report, report_page(read_series(run)))


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
    return document(
        f"{series.name} · Coterie",
        header(series),
        [
            ("loss", "Loss", loss_section(series)),
            ("samples", "Samples through training", samples_section(series)),
            ("experts", "Experts", experts_section(series)),
            ("optimizer", "Optimiser and speed", optimizer_section(series)),
            ("record", "Record", record_section(series)),
            ("configuration", "Configuration and machine", configuration_section(series)),
        ],
    )


def _write(place: Path, text: str) -> Path:
    if place.is_dir():
        raise UserError(
            f"{place} is a folder; a report is one file.",
            hint=f"Name the file: --out {place / 'report.html'}",
        )
    write_text_atomic(place, text)
    return place
