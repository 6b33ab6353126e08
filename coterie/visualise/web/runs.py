"""All runs on one page: what each has reached, and its curves, read as the records grow."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from coterie.foundation.errors import CoterieError, UserError
from coterie.foundation.event_log import LogReader
from coterie.foundation.locks import owner_of
from coterie.foundation.runs import RunDirectory, list_runs
from coterie.visualise.reducers.curves import thin
from coterie.visualise.reducers.steps import Steps
from coterie.visualise.reducers.watched import Watched
from coterie.visualise.series import Series
from coterie.visualise.web.control import resume, stop

MOST_RUNS = 100  # the latest
_POINTS = 400  # of a curve
_FRAMES = 80  # of the time-lapse


class Board:
    """The runs below the root, each read once and followed from there.

    Args:
        listed: returns the runs there are, the latest last.
        control: runs may be stopped and resumed from the page.
    """

    def __init__(
        self, listed: Callable[[], Sequence[RunDirectory]] = list_runs, *, control: bool = False
    ) -> None:
        self._listed, self._lock, self.control = listed, threading.Lock(), control
        self._known: dict[str, tuple[LogReader, Series]] = {}

    def listing(self) -> list[dict[str, Any]]:
        """Return the headline of each run, the latest first."""
        runs = list(self._listed())[-MOST_RUNS:][::-1]
        found = []
        for run in runs:
            try:
                headline = {**self._series(run).headline(), "name": run.name}
                found.append({**headline, "owned": owner_of(run.path) is not None})
            except CoterieError as error:
                found.append({"name": run.name, "status": "unreadable", "problem": str(error)})
        return found

    def curves(self, name: str) -> dict[str, Any]:
        """Return a run's headline and curves.

        `loads` are over even ones (1 is fair), one frame for each stretch of steps.

        Raises:
            UserError: there is no such run, or its record cannot be read.
        """
        run = self._run(name)
        series = self._series(run)
        step = series.step
        held_out = series.validation
        return {
            "name": run.name, "headline": series.headline(),
            "loss": _curve(step, series.smoothed),
            "validation": [[each.step, _round(each.loss)] for each in held_out],
            "speed": _curve(step, series[Steps].curves["tokens_per_second"]),
            "loads": [
                {"layer": each.layer, "steps": each.steps.tolist(),
                 "share": np.round(each.share, 4).tolist()}
                for each in (layer.binned(_FRAMES) for layer in series.layers)
            ],
            "told": _told(series[Watched]),
            "samples": [{"step": each.step, "prompt": each.prompt, "text": each.text[:2000]}
                        for each in series.samples[-12:]],
            "notices": [each.message for each in series.warnings[-5:]],
        }  # fmt: skip

    def act(self, name: str, what: Literal["stop", "resume"]) -> str:
        """Stop or resume a run; return what was done, in a sentence.

        Raises:
            UserError: there is no such run, or that may not or cannot be done.
        """
        if not self.control:
            raise UserError("Runs are only looked at here.", hint="coterie watch --web --control")
        return {"stop": stop, "resume": resume}[what](self._run(name))

    def _run(self, name: str) -> RunDirectory:
        run = next((each for each in self._listed() if each.name == name), None)
        if run is None:
            raise UserError(f"There is no run {name[:80]} here.")
        return run

    def _series(self, run: RunDirectory) -> Series:
        with self._lock:
            reader, series = self._known.setdefault(
                str(run.path), (LogReader(run.events), Series(run.name, path=run.events))
            )
            for event in reader.read():
                series.update(event)
        return series


def _told(watched: Watched) -> list[dict[str, Any]]:
    """Return what the experts of each routed layer told of tokens at each look, in nats."""
    return [
        {
            "layer": each.layer,
            **{name: _curve(watched.curves.steps, watched.curve(each.layer, name))
               for name in ("token", "token_null", "position", "position_null")},
            "experts": [
                {"weight": _round(expert.weight), "favourites": [
                    [watched.word(token), seen, _round(lift)]
                    for token, seen, lift in expert.favourites]}
                for expert in each.experts
            ],
        }
        for each in watched.routed
    ]  # fmt: skip


def _curve(x: np.ndarray, y: np.ndarray) -> list[list[float]]:
    known = np.isfinite(y)
    steps, values = thin(x[known], y[known], _POINTS)
    return [[int(step), _round(value)] for step, value in zip(steps, values, strict=True)]


def _round(value: float) -> float:
    return round(float(value), 6)
