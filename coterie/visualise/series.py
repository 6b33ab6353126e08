"""Everything that the views show of a run, kept up to date one event at a time.

A `Series` holds the states of reducers and reads them for figures and pictures. The report, the
comparison, the plots and the live panel all look at the same one.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from coterie.foundation.errors import RunError, SettingsError
from coterie.foundation.event_log import LogReader, complaints
from coterie.foundation.events import Event, LogRestarted, Notice, resumed_from
from coterie.foundation.records import parse_yaml
from coterie.foundation.runs import RunDirectory
from coterie.train.events import (
    CheckpointDamaged,
    CheckpointSaved,
    Evaluated,
    RunEnded,
    RunStarted,
    Sampled,
)
from coterie.visualise.reducers.base import Reducer
from coterie.visualise.reducers.course import (
    Checkpoints,
    Course,
    Data,
    Evaluations,
    Notices,
    Samples,
    Unread,
)
from coterie.visualise.reducers.loads import LayerHistory, Loads
from coterie.visualise.reducers.reinforcement import Reinforcement
from coterie.visualise.reducers.steps import MemoryByPart, Pace, Parts, Processes, Steps
from coterie.visualise.reducers.watched import Watched

R = TypeVar("R", bound=Reducer)
REDUCERS: tuple[type[Reducer], ...] = (
    Course, Steps, Pace, Loads, Parts, MemoryByPart, Processes, Evaluations, Samples, Checkpoints,
    Data, Notices, Unread, Reinforcement, Watched,
)  # fmt: skip


class Series:
    """What is known of one run so far.

    Args:
        name: serves until an event tells the run's own.
        config: the run's settings as YAML.
        problems: sentences on what could not be read beside the events.
        path: of the log, named where a line of it is damaged.
        guests: reducers of views from outside the package. One that raises is told nothing more;
            `failures` then holds its exception.
    """

    def __init__(
        self,
        name: str = "run",
        config: str = "",
        problems: Sequence[str] = (),
        path: Path = Path("events.jsonl"),
        guests: Iterable[type[Reducer]] = (),
    ) -> None:
        self.config = config
        self._name, self._problems, self._path = name, tuple(problems), path
        self._kinds = tuple(dict.fromkeys((*REDUCERS, *guests)))
        self._begin()

    def settings(self) -> dict[str, Any]:
        """Return the run's settings; none where the configuration cannot be read."""
        try:
            value = parse_yaml(self.config, "the configuration")
        except SettingsError:
            return {}
        return value if isinstance(value, dict) else {}

    def _begin(self) -> None:
        self.failures: dict[type[Reducer], Exception] = {}
        self._states: dict[type[Reducer], Reducer] = {}
        self._readers: dict[type[Event], list[Reducer]] = {}
        for kind in self._kinds:
            try:
                self._states[kind] = state = kind()
            except Exception as error:
                self._dismiss(kind, error)
                continue
            for event in kind.kinds:
                self._readers.setdefault(event, []).append(state)

    def update(self, event: Event) -> None:
        """Take in one event; a resumption takes steps back, a log that restarted everything."""
        if isinstance(event, LogRestarted):
            self._begin()
        start = resumed_from(event)
        if start is not None:
            for state in self._states.values():
                self._tell(state, state.rewind, start)
        for state in tuple(self._readers.get(type(event), ())):
            self._tell(state, state.update, event)

    def _tell(self, state: Reducer, method: Callable[[Any], None], what: Any) -> None:
        if type(state) in self.failures:
            return
        try:
            method(what)
        except Exception as error:
            self._dismiss(type(state), error)

    def _dismiss(self, kind: type[Reducer], error: Exception) -> None:
        if kind in REDUCERS:
            raise error
        self.failures[kind] = error

    def __getitem__(self, kind: type[R]) -> R:
        state = self._states[kind]
        assert isinstance(state, kind)
        return state

    @property
    def name(self) -> str:
        return self.start.name if self.start else self._name

    @property
    def starts(self) -> tuple[RunStarted, ...]:
        """The start and every resumption."""
        return tuple(self[Course].starts)

    @property
    def start(self) -> RunStarted | None:
        """The latest start or resumption, which describes the machine in use."""
        return self.starts[-1] if self.starts else None

    @property
    def resumes(self) -> tuple[int, ...]:
        """Steps from which the run was resumed."""
        return tuple(s.resumed_from for s in self.starts if s.resumed_from is not None)

    @property
    def ended(self) -> RunEnded | None:
        """How the run ended, unless it was resumed since."""
        return self[Course].ended

    @property
    def status(self) -> str:
        """`finished`, `interrupted`, `failed`, or `running` where no end was recorded."""
        return self.ended.status if self.ended else "running"

    @property
    def step(self) -> np.ndarray:
        """[N] optimizer steps; the arrays below are over these."""
        return self[Steps].curves.steps

    @property
    def tokens(self) -> np.ndarray:
        """[N] tokens read so far."""
        return self[Steps].curves["tokens"].astype(np.int64)

    @property
    def elapsed(self) -> np.ndarray:
        """[N] training seconds so far, without evaluation and saving."""
        return self[Steps].curves["elapsed"]

    @property
    def loss(self) -> np.ndarray:
        """[N] training loss, nats per token."""
        return self[Steps].curves["loss"]

    @property
    def smoothed(self) -> np.ndarray:
        """[N] the training loss without its step-to-step noise."""
        return self[Steps].smoothed

    @property
    def layers(self) -> tuple[LayerHistory, ...]:
        """Loads of the layers that have experts."""
        return self[Loads].layers

    @property
    def evaluations(self) -> dict[str, tuple[Evaluated, ...]]:
        """Evaluations by split."""
        return self[Evaluations].splits

    @property
    def validation(self) -> tuple[Evaluated, ...]:
        """Evaluations on the held-out split, or on the first split there is."""
        return self.evaluations.get(self[Evaluations].held_out or "", ())

    @property
    def best(self) -> Evaluated | None:
        """The evaluation with the lowest loss."""
        return self[Evaluations].best

    @property
    def samples(self) -> tuple[Sampled, ...]:
        return tuple(sample for samples in self[Samples].steps for sample in samples)

    @property
    def saved(self) -> tuple[CheckpointSaved, ...]:
        return tuple(self[Checkpoints].saved)

    @property
    def damaged(self) -> tuple[CheckpointDamaged, ...]:
        return tuple(self[Checkpoints].damaged)

    @property
    def notices(self) -> tuple[Notice, ...]:
        """What the reader should know."""
        return tuple(self[Notices].latest)

    @property
    def warnings(self) -> tuple[Notice, ...]:
        """Notices that ask for attention."""
        return tuple(notice for notice in self.notices if notice.level == "warning")

    @property
    def complaints(self) -> tuple[str, ...]:
        """What the run's directory holds and could not be read."""
        unread = self[Unread]
        return (*complaints(self._path, unread.skipped, unread.count), *self._problems)

    @property
    def imbalance(self) -> float | None:
        """Largest load over mean load of any layer, over the last tenth of its measurements."""
        if not self.layers:
            return None
        worst = []
        for layer in self.layers:
            tail = layer.load[-max(1, len(layer.load) // 10) :].sum(axis=0)
            worst.append(tail.max() * len(tail) / max(1, tail.sum()))
        return float(max(worst))

    @property
    def dead_experts(self) -> int:
        """Experts without a token in the latest measurement, over all layers."""
        return int(sum(layer.dead[-1] for layer in self.layers))

    @property
    def dropped(self) -> int:
        """Tokens that no expert took, over all layers and the whole run."""
        return int(sum(layer.dropped.sum() for layer in self.layers))

    def at_step(self, values: np.ndarray, steps: Sequence[int]) -> np.ndarray:
        """Return what `values` (over optimizer steps) was when each of `steps` had been done."""
        done = self.step
        if not len(done):
            return np.zeros(len(steps))
        index = np.searchsorted(done, np.asarray(steps), side="right") - 1
        return np.where(index >= 0, values[np.clip(index, 0, None)], 0.0)

    def headline(self) -> dict[str, Any]:
        """Return the figures that tell how the run went, under plain names, for people and JSON."""
        start, last = self.start, self.validation[-1] if self.validation else None
        curves = self[Steps].curves
        step, smoothed, elapsed, tokens = self.step, self.smoothed, self.elapsed, self.tokens
        return {
            "name": self.name,
            "preset": start.preset if start else None,
            "status": self.status,
            "steps": int(step[-1]) if len(step) else 0,
            "steps_planned": start.steps if start else None,
            "epochs_planned": start.epochs if start else None,
            "training_loss": _finite(smoothed[-1]) if len(step) else None,
            "validation_loss": _finite(last.loss) if last else None,
            "best_validation_loss": _finite(self.best.loss) if self.best else None,
            "nats_per_character": _finite(last.nats_per_character) if last else None,
            "tokens": int(tokens[-1]) if len(tokens) else 0,
            "training_seconds": round(float(elapsed[-1]), 3) if len(elapsed) else 0.0,
            "tokens_per_second": _median(curves["tokens_per_second"]),
            "mfu": _median(curves["mfu"]),
            "parameters": start.parameters if start else None,
            "active_parameters": start.active_parameters if start else None,
            "max_over_mean_load": _finite(self.imbalance),
            "dead_experts": self.dead_experts if self.layers else None,
            "dropped_tokens": self.dropped if self.layers else None,
            "warnings": len(self.warnings),
            "damaged_checkpoints": len(self.damaged),
            "complaints": list(self.complaints),
        }


def read_series(run: RunDirectory, guests: Iterable[type[Reducer]] = ()) -> Series:
    """Read a run directory's events and configuration.

    Raises:
        RunError: the run has recorded nothing yet, or its log cannot be read.
    """
    if not run.events.exists():
        raise RunError(f"{run.events} does not exist: the run has recorded nothing yet.")
    config, problems = "", []
    if run.config.is_file():
        try:
            config = run.config.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            problems.append(f"{run.config} cannot be read: {error.strerror}.")
    series = Series(run.name, config, problems, run.events, guests)
    for event in LogReader(run.events).read(final=True):
        series.update(event)
    return series


def series_of(events: Iterable[Event], name: str = "run", config: str = "") -> Series:
    """Return the series of events. `name` serves where the events do not tell one."""
    series = Series(name, config)
    for event in events:
        series.update(event)
    return series


def _finite(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else round(float(value), 6)


def _median(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return _finite(float(np.median(known))) if len(known) else None
