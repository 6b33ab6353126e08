"""CSV: one row per number, readable by any spreadsheet or data frame."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Literal

from pydantic import Field

from coterie.foundation.events import Event, step_of
from coterie.foundation.files import open_append
from coterie.foundation.paths import PathText
from coterie.foundation.runs import RunDirectory
from coterie.foundation.settings import Settings


class CSV(Settings):
    """Rows of (step, time, name, value) in a file of the run's directory."""

    kind: Literal["csv"] = "csv"
    file: PathText = Field(default="metrics.csv", description="name inside the run's directory")

    def build(self, run: RunDirectory) -> CSVWriter:
        """Return an observer that appends to the run's file."""
        return CSVWriter(run.path / self.file)


class CSVWriter:
    """Appends numbers to a CSV file; a resumed run goes on below, with its steps said again."""

    def __init__(self, path: Path) -> None:
        is_new = not path.exists() or path.stat().st_size == 0
        self._file = open_append(path)
        self._writer = csv.writer(self._file)
        if is_new:
            self._writer.writerow(["step", "time", "name", "value"])

    def __call__(self, event: Event) -> None:
        """Append an event's numbers."""
        for name, value in event.numbers().items():
            step = step_of(event)
            self._writer.writerow([step, f"{event.time:.3f}", name, repr(value)])
        self._file.flush()  # a kill costs no rows and tears none

    def close(self) -> None:
        """Write out what is buffered and close the file."""
        self._file.close()
