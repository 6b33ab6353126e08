"""A run's events as series: arrays over steps, loads per layer, and the headline figures.

Every picture (page, plot files) is drawn from a `Series`; nothing here knows how it is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from coterie.foundation.event_log import read_record
from coterie.foundation.events import Event, Notice
from coterie.foundation.runs import RunDirectory
from coterie.train.events import (
    CheckpointDamaged,
    CheckpointSaved,
    Evaluated,
    LayerLoad,
    LoadMeasured,
    RunEnded,
    RunStarted,
    Sampled,
    StepDone,
)
from coterie.visualise.figures import HELD_OUT

POINTS = 1500  # most points a drawn curve keeps
BINS = 160  # most columns a heat map keeps


@dataclass(frozen=True)
class LayerHistory:
    """Load of one layer's experts over N measurements.

    Args:
        layer: the layer's number in the model.
        steps: [N] the step at which each measurement ended.
        load: [N, E] tokens per expert.
        dropped: [N] tokens that no expert took.
        bias: [N, E] selection bias, or None where the router has none.
    """

    layer: int
    steps: np.ndarray
    load: np.ndarray
    dropped: np.ndarray
    bias: np.ndarray | None

    @cached_property
    def share(self) -> np.ndarray:
        """[N, E] load over an even share: 1 is balanced, 0 a dead expert."""
        total = self.load.sum(axis=1, keepdims=True)
        return self.load * self.load.shape[1] / np.maximum(total, 1)

    @cached_property
    def imbalance(self) -> np.ndarray:
        """[N] the busiest expert's load over the mean load."""
        return self.share.max(axis=1)

    @cached_property
    def dead(self) -> np.ndarray:
        """[N] how many experts received no token at all."""
        return (self.load == 0).sum(axis=1)

    def binned(self, limit: int = BINS) -> LayerHistory:
        """Return the same history with neighbouring measurements summed until few enough remain."""
        count = len(self.steps)
        if count <= limit:
            return self
        edges = np.linspace(0, count, limit + 1).astype(int)
        starts = edges[:-1]
        bias = None if self.bias is None else self.bias[edges[1:] - 1]
        return LayerHistory(
            layer=self.layer,
            steps=self.steps[edges[1:] - 1],
            load=np.add.reduceat(self.load, starts, axis=0),
            dropped=np.add.reduceat(self.dropped, starts),
            bias=bias,
        )


@dataclass(frozen=True)
class Series:
    """Everything the pictures need of one run. Arrays are over its optimizer steps."""

    name: str
    starts: tuple[RunStarted, ...]
    ended: RunEnded | None
    step: np.ndarray
    loss: np.ndarray
    learning_rate: np.ndarray
    gradient_norm: np.ndarray
    tokens: np.ndarray
    elapsed: np.ndarray  # training seconds so far, without evaluation and saving
    tokens_per_second: np.ndarray
    mfu: np.ndarray
    memory: np.ndarray
    auxiliary: dict[str, np.ndarray]
    layers: tuple[LayerHistory, ...]
    evaluations: dict[str, tuple[Evaluated, ...]]
    samples: tuple[Sampled, ...]
    saved: tuple[CheckpointSaved, ...]
    damaged: tuple[CheckpointDamaged, ...]
    notices: tuple[Notice, ...]
    config: str = field(default="", repr=False)
    complaints: tuple[str, ...] = ()  # what the record holds and could not be read

    @property
    def start(self) -> RunStarted | None:
        """The latest start or resumption, which describes the machine in use."""
        return self.starts[-1] if self.starts else None

    @property
    def resumes(self) -> tuple[int, ...]:
        """Steps from which the run was resumed."""
        return tuple(s.resumed_from for s in self.starts if s.resumed_from is not None)

    @cached_property
    def smoothed(self) -> np.ndarray:
        """The training loss without its step-to-step noise."""
        return smooth(self.loss)

    @cached_property
    def validation(self) -> tuple[Evaluated, ...]:
        """Evaluations on the held-out split, or on the first split there is."""
        for name in (*HELD_OUT, *self.evaluations):
            if name in self.evaluations:
                return self.evaluations[name]
        return ()

    @property
    def best(self) -> Evaluated | None:
        """The evaluation with the lowest loss."""
        return min(self.validation, key=lambda e: _or_infinite(e.loss), default=None)

    @property
    def status(self) -> str:
        """`finished`, `interrupted`, `failed`, or `running` where no end was recorded."""
        return self.ended.status if self.ended else "running"

    @property
    def warnings(self) -> tuple[Notice, ...]:
        """Notices that ask for attention."""
        return tuple(notice for notice in self.notices if notice.level == "warning")

    @cached_property
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
        if not len(self.step):
            return np.zeros(len(steps))
        index = np.searchsorted(self.step, np.asarray(steps), side="right") - 1
        return np.where(index >= 0, values[np.clip(index, 0, None)], 0.0)

    def headline(self) -> dict[str, Any]:
        """Return the figures that tell how the run went, under plain names, for people and JSON."""
        start, last = self.start, self.validation[-1] if self.validation else None
        return {
            "name": self.name,
            "preset": start.preset if start else None,
            "status": self.status,
            "steps": int(self.step[-1]) if len(self.step) else 0,
            "steps_planned": start.steps if start else None,
            "training_loss": _finite(self.smoothed[-1]) if len(self.step) else None,
            "validation_loss": _finite(last.loss) if last else None,
            "best_validation_loss": _finite(self.best.loss) if self.best else None,
            "nats_per_character": _finite(last.nats_per_character) if last else None,
            "tokens": int(self.tokens[-1]) if len(self.tokens) else 0,
            "training_seconds": round(float(self.elapsed[-1]), 3) if len(self.elapsed) else 0.0,
            "tokens_per_second": _median(self.tokens_per_second),
            "mfu": _median(self.mfu),
            "parameters": start.parameters if start else None,
            "active_parameters": start.active_parameters if start else None,
            "max_over_mean_load": _finite(self.imbalance),
            "dead_experts": self.dead_experts if self.layers else None,
            "dropped_tokens": self.dropped if self.layers else None,
            "warnings": len(self.warnings),
            "damaged_checkpoints": len(self.damaged),
            "complaints": list(self.complaints),
        }


def read_series(run: RunDirectory) -> Series:
    """Read a run directory's events and configuration.

    Raises:
        RunError: the run has recorded nothing yet.
    """
    record = read_record(run.events)
    config, complaints = "", record.complaints()
    if run.config.is_file():
        try:
            config = run.config.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            complaints.append(f"{run.config} cannot be read: {error.strerror}.")
    return series_of(record.events, run.name, config, complaints)


def series_of(
    events: Sequence[Event], name: str = "run", config: str = "", complaints: Sequence[str] = ()
) -> Series:
    """Sort events into series. `name` serves where the events do not tell one."""
    steps = _of(events, StepDone)
    starts = _of(events, RunStarted)
    evaluations: dict[str, tuple[Evaluated, ...]] = {}
    for event in _of(events, Evaluated):
        evaluations[event.split] = (*evaluations.get(event.split, ()), event)
    names = sorted({key for event in steps for key in event.auxiliary})
    return Series(
        name=starts[-1].name if starts else name,
        starts=tuple(starts),
        ended=_ended(events),
        step=np.array([e.step for e in steps], dtype=np.int64),
        loss=_array(e.loss for e in steps),
        learning_rate=_array(e.learning_rate for e in steps),
        gradient_norm=_array(e.gradient_norm for e in steps),
        tokens=np.array([e.tokens for e in steps], dtype=np.int64),
        elapsed=_elapsed(steps),
        tokens_per_second=_array(e.tokens_per_second for e in steps),
        mfu=_array(e.mfu for e in steps),
        memory=_array(e.memory_bytes for e in steps),
        auxiliary={key: _array(e.auxiliary.get(key) for e in steps) for key in names},
        layers=_layers(_of(events, LoadMeasured)),
        evaluations=evaluations,
        samples=tuple(_of(events, Sampled)),
        saved=tuple(_of(events, CheckpointSaved)),
        damaged=tuple(_of(events, CheckpointDamaged)),
        notices=tuple(_of(events, Notice)),
        config=config,
        complaints=tuple(complaints),
    )


def smooth(values: np.ndarray, window: int | None = None) -> np.ndarray:
    """Return a running mean that does not lag: centred, narrowing towards the first value.

    Values that are not finite are left out. The mean is taken twice, which weights near values more
    and leaves no steps at the edges of a peak. The window is a fortieth of the series unless given.
    """
    if len(values) == 0:
        return values
    half = max(1, (window or max(5, len(values) // 40)) // 2)
    return _running_mean(_running_mean(values, half), half)


def _running_mean(values: np.ndarray, half: int) -> np.ndarray:
    """Return means over up to `half` values either side; at the end the window trails."""
    count = len(values)
    finite = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    number = np.concatenate([[0], np.cumsum(finite)])
    position = np.arange(count)
    low = np.maximum(0, position - np.minimum(position, half))
    high = np.minimum(count, position + np.minimum(position, half) + 1)
    among = number[high] - number[low]
    with np.errstate(invalid="ignore"):
        return np.where(among > 0, (total[high] - total[low]) / np.maximum(among, 1), np.nan)


def thin(
    x: np.ndarray, y: np.ndarray, limit: int = POINTS
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return at most about `limit` points of a curve, keeping every bucket's extremes.

    The first and last points stay; a peak of one step is never lost.
    """
    if len(x) <= limit:
        return x, y
    edges = np.linspace(0, len(x), max(2, limit // 2)).astype(int)
    keep = {0, len(x) - 1}
    for low, high in pairwise(edges):
        bucket = y[low:high]
        if np.isfinite(bucket).any():
            keep.update((low + int(np.nanargmin(bucket)), low + int(np.nanargmax(bucket))))
        else:
            keep.add(int(low))
    index = np.array(sorted(keep))
    return x[index], y[index]


def _layers(measured: list[LoadMeasured]) -> tuple[LayerHistory, ...]:
    """Gather the measurements by layer, leaving out any whose number of experts is not the last."""
    found: dict[int, list[tuple[int, LayerLoad]]] = {}
    for event in measured:
        for layer in event.layers:
            found.setdefault(layer.layer, []).append((event.step, layer))
    histories = []
    for number, entries in sorted(found.items()):
        experts = len(entries[-1][1].load)
        same = [(step, layer) for step, layer in entries if len(layer.load) == experts]
        if experts == 0:
            continue
        biases = [layer.bias for _, layer in same]
        complete = all(bias is not None and len(bias) == experts for bias in biases)
        histories.append(
            LayerHistory(
                layer=number,
                steps=np.array([step for step, _ in same], dtype=np.int64),
                load=np.array([layer.load for _, layer in same], dtype=np.int64),
                dropped=np.array([layer.dropped for _, layer in same], dtype=np.int64),
                bias=np.array(biases, dtype=np.float64) if complete else None,
            )
        )
    return tuple(histories)


def _ended(events: Sequence[Event]) -> RunEnded | None:
    """Return how the run ended, unless it was resumed since."""
    ended = None
    for event in events:
        if isinstance(event, RunEnded):
            ended = event
        elif isinstance(event, RunStarted):
            ended = None
    return ended


def _elapsed(steps: list[StepDone]) -> np.ndarray:
    """Return training seconds so far at each recorded step.

    Where only every n-th step is recorded, its time stands for the n steps since the last record.
    """
    number = np.array([0, *(e.step for e in steps)], dtype=np.float64)
    return np.cumsum(_array(e.seconds for e in steps) * np.maximum(np.diff(number), 1))


def _of(events: Sequence[Event], kind: type) -> list:
    return [event for event in events if isinstance(event, kind)]


def _array(values: Iterable[float | None]) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values], dtype=np.float64)


def _finite(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else round(float(value), 6)


def _or_infinite(value: float) -> float:
    return value if np.isfinite(value) else np.inf


def _median(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return _finite(float(np.median(known))) if len(known) else None
