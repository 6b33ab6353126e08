"""Where a run stands, gathered from its events one by one: what the live display shows.

Constant memory however long the run is.
"""

from __future__ import annotations

import math
from collections import deque

from coterie.foundation.events import Event, Notice
from coterie.train.events import (
    CheckpointSaved,
    Evaluated,
    LoadMeasured,
    RunEnded,
    RunStarted,
    Sampled,
    StepDone,
)

_PACE_STEPS = 200  # steps whose pace the time left is reckoned from
_CURVE_POINTS = 256


class Progress:
    """The latest of everything, the loss so far as a short curve, and the time left."""

    def __init__(self) -> None:
        self.start: RunStarted | None = None
        self.last: StepDone | None = None
        self.load: LoadMeasured | None = None
        self.evaluation: Evaluated | None = None
        self.best: Evaluated | None = None
        self.sample: Sampled | None = None
        self.saved: CheckpointSaved | None = None
        self.notices: deque[tuple[str, str]] = deque(maxlen=3)  # (level, message)
        self.ended: RunEnded | None = None
        self.smoothed: float | None = None
        self.curve: list[float] = []
        self._every = 1  # steps that one point of the curve stands for
        self._waiting: list[float] = []
        self._pace: deque[tuple[int, float]] = deque(maxlen=_PACE_STEPS)

    def update(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case RunStarted():
                self.start, self.ended = event, None
                self._pace.clear()
                self._pace.append((event.resumed_from or 0, event.time))
            case StepDone():
                self.last = event
                self._pace.append((event.step, event.time))
                self._take_loss(event.loss)
            case LoadMeasured():
                self.load = event
            case Evaluated():
                self.evaluation = event
                if math.isfinite(event.loss) and (self.best is None or event.loss < self.best.loss):
                    self.best = event
            case Sampled():
                self.sample = event
            case CheckpointSaved():
                self.saved = event
            case Notice():  # a damaged checkpoint is told by a notice, too
                self.notices.append((event.level, event.message))
            case RunEnded():
                self.ended = event

    def _take_loss(self, loss: float) -> None:
        """Update the smoothed loss and the curve, which halves itself when it is full."""
        if loss != loss or abs(loss) == float("inf"):
            return
        # The weight of the past grows with the run, so that the fast beginning is followed closely.
        weight = min(0.97, 1 - 4 / (5 + self.step))
        old = self.smoothed
        self.smoothed = loss if old is None else weight * old + (1 - weight) * loss
        self._waiting.append(self.smoothed)
        if len(self._waiting) >= self._every:
            self.curve.append(sum(self._waiting) / len(self._waiting))
            self._waiting.clear()
        if len(self.curve) >= _CURVE_POINTS:
            pairs = zip(self.curve[::2], self.curve[1::2], strict=True)
            self.curve = [(a + b) / 2 for a, b in pairs]
            self._every *= 2

    @property
    def step(self) -> int:
        """The latest step done."""
        if self.last:
            return self.last.step
        return (self.start.resumed_from or 0) if self.start else 0

    @property
    def steps(self) -> int:
        """The steps planned."""
        return self.start.steps if self.start else 0

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last step, at the pace of the latest steps with all they include."""
        if len(self._pace) < 2 or self.ended:
            return None
        (first, began), (last, now) = self._pace[0], self._pace[-1]
        if last <= first or self.steps <= last:
            return None
        return (now - began) / (last - first) * (self.steps - last)

    @property
    def imbalance(self) -> float | None:
        """The busiest expert's load over its layer's mean, in the layer where it is largest."""
        if not self.load:
            return None
        return max(
            (max(x.load) * len(x.load) / sum(x.load) for x in self.load.layers if sum(x.load)),
            default=None,
        )
