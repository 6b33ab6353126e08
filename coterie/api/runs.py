"""Runs from Python: their losses as arrays, their pictures, their page, their model. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import coterie
from coterie.api.summary import summary
from coterie.foundation.event_log import read_events
from coterie.foundation.runs import RunDirectory, find_run, list_runs
from coterie.train.events import Evaluated, StepDone
from coterie.visualise.notebook import facts_html, table_html
from coterie.visualise.plots import Picture, run_figure
from coterie.visualise.report import write_report
from coterie.visualise.series import read_series

if TYPE_CHECKING:
    from coterie.api.model import Model

    _Path = Path
else:
    _Path = type(Path())

_COLUMNS = ("name", "preset", "status", "step", "steps", "loss", "validation_loss", "active")
_UNSHOWN = ("name", "problems")


class Losses(NamedTuple):
    """Losses in nats per token, each an array of the records (step, loss).

    `plt.plot("step", "loss", data=losses.train)` draws one, `pandas.DataFrame(losses.train)` is it
    as a table, and `losses.train.loss` are the values alone.

    Attributes:
        train: of each recorded step.
        validation: of each evaluation on the part held out.
    """

    train: np.recarray
    validation: np.recarray


class Page(_Path):
    """The path of a report, which a notebook shows as the page itself."""

    def _repr_html_(self) -> str:
        page = escape(self.read_text(encoding="utf-8"), quote=True)
        return f'<iframe srcdoc="{page}" style="width:100%;height:40em;border:0"></iframe>'


class Run:
    """A run: what its record says, and ways to what was made of it.

    Everything is read from the run's directory at the time of asking, so a run that goes on can be
    watched.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory

    @property
    def name(self) -> str:
        return self._directory.name

    @property
    def path(self) -> Path:
        """The run's directory: config.yaml, events.jsonl, checkpoints, samples, report.html."""
        return self._directory.path

    def summary(self) -> dict[str, Any]:
        """Return the run's figures: preset, status, steps, losses, parameters, tokens."""
        return summary(self._directory)

    @property
    def losses(self) -> Losses:
        """The losses so far, as arrays.

        Raises:
            RunError: the run has recorded nothing yet.
        """
        events = read_events(self._directory.events)
        steps = [each for each in events if isinstance(each, StepDone)]
        held_out = [
            each for each in events if isinstance(each, Evaluated) and each.split == "valid"
        ]
        return Losses(_records(steps), _records(held_out))

    def plot(self) -> Picture:
        """Return losses and load per expert as a matplotlib figure.

        Raises:
            UserError: no step was recorded yet.
        """
        return run_figure(read_series(self._directory))

    def report(self) -> Page:
        """Write the run's page, one HTML file that works offline, and return its path.

        Raises:
            RunError: the run has recorded nothing yet.
            UserError: the place cannot be written.
        """
        return Page(write_report(self._directory))

    def load(self, *, step: int | None = None, device: str = "auto") -> Model:
        """Load the run's model; see `coterie.load`."""
        return coterie.load(self.path, step=step, device=device)

    def resume(self, settings: Mapping[str, Any] | None = None) -> Run:
        """Go on with the run; see `coterie.resume`."""
        return coterie.resume(self.path, settings)

    def __repr__(self) -> str:
        row = self.summary()
        loss = row["validation_loss"]
        told = "" if loss is None else f", validation loss {loss:.4f}"
        return f"<Run {self.name}: {row['status']}, step {row['step']:,}/{row['steps']:,}{told}>"

    def _repr_html_(self) -> str:
        row = self.summary()
        rows = [(key.replace("_", " "), _shown(row[key])) for key in row if key not in _UNSHOWN]
        return facts_html(f"Run {self.name}", rows)


class Runs(list[Run]):
    """Runs, the one active last at the end; `runs["demo"]` is one by its name."""

    def __getitem__(self, key: Any) -> Any:
        return Run(find_run(key)) if isinstance(key, str) else super().__getitem__(key)

    def _repr_html_(self) -> str:
        rows = [each.summary() for each in self]
        return table_html(_COLUMNS, ([_shown(row[column]) for column in _COLUMNS] for row in rows))


def runs() -> Runs:
    """Return the runs of this place (COTERIE_RUNS, or `./runs`), the one active last at the end."""
    return Runs(Run(directory) for directory in list_runs())


def _records(events: Sequence[StepDone] | Sequence[Evaluated]) -> np.recarray:
    return np.rec.fromarrays(
        [[each.step for each in events], [each.loss for each in events]],
        dtype=[("step", np.int64), ("loss", np.float64)],
    )


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
