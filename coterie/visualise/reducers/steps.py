"""The optimizer steps of a run as curves, its pace, its parts and the memory they take."""

from collections import deque

import numpy as np

from coterie.foundation.events import Event
from coterie.train.events import (
    MemoryProfiled,
    PartsMeasured,
    RanksMeasured,
    RunEnded,
    RunStarted,
    StepDone,
)
from coterie.visualise.reducers.base import Reducer
from coterie.visualise.reducers.curves import Curves, smooth

_PACE_STEPS = 200  # steps whose pace the time left is reckoned from
_AUXILIARY, _SOURCE = "auxiliary/", "source/"


class Steps(Reducer):
    """Loss, learning rate, speed and the like over the steps; `last` is the latest step."""

    kinds = (StepDone,)

    def __init__(self) -> None:
        self.curves = Curves("tokens", "elapsed")
        self.last: StepDone | None = None

    def update(self, event: StepDone) -> None:
        # Where only every n-th step is recorded, its time stands for the n steps since the last.
        steps = max(event.step - self.curves.last_step, 1)
        numbers: dict[str, float | None] = {
            "tokens": event.tokens,
            "elapsed": self.curves.last("elapsed") + event.seconds * steps,
            "loss": event.loss,
            "learning_rate": event.learning_rate,
            "gradient_norm": event.gradient_norm,
            "tokens_per_second": event.tokens_per_second,
            "mfu": event.mfu,
            "memory": event.memory_bytes,
        }
        for name, value in event.auxiliary.items():
            numbers[_AUXILIARY + name] = value
        for name, value in (event.sources or {}).items():
            numbers[_SOURCE + name] = value
        self.curves.add(event.step, numbers)
        self.last = event

    def rewind(self, step: int) -> None:
        self.curves.rewind(step)
        if self.last and self.last.step > step:
            self.last = None

    @property
    def smoothed(self) -> np.ndarray:
        """[N] the training loss without its step-to-step noise."""
        return smooth(self.curves["loss"])

    @property
    def auxiliary(self) -> dict[str, np.ndarray]:
        """[N] each auxiliary loss, by its name."""
        return self.curves.under(_AUXILIARY)

    @property
    def sources(self) -> dict[str, np.ndarray]:
        """[N] the loss of each mixed source, by its name."""
        return self.curves.under(_SOURCE)


class Pace(Reducer):
    """When the latest steps were done, evaluations and checkpoints included."""

    kinds = (RunStarted, StepDone, RunEnded)

    def __init__(self) -> None:
        self._planned = 0
        self._moments: deque[tuple[int, float]] = deque(maxlen=_PACE_STEPS)

    def update(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._planned = event.steps
                self._moments.clear()
                self._moments.append((event.resumed_from or 0, event.time))
            case StepDone():
                self._moments.append((event.step, event.time))
            case RunEnded():
                self._moments.clear()

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last planned step at the pace of the latest; None where unknown."""
        if len(self._moments) < 2:
            return None
        (first, began), (last, now) = self._moments[0], self._moments[-1]
        if last <= first or self._planned <= last:
            return None
        return (now - began) / (last - first) * (self._planned - last)


_GRADIENT, _UPDATE = "gradient/", "update/"


class Parts(Reducer):
    """Norms of gradients, and updates over weights, by the part's name."""

    kinds = (PartsMeasured,)

    def __init__(self) -> None:
        self.curves = Curves()

    def update(self, event: PartsMeasured) -> None:
        gradients = {_GRADIENT + each.part: each.gradient_norm for each in event.parts}
        updates = {_UPDATE + each.part: each.update_ratio for each in event.parts}
        self.curves.add(event.step, gradients | updates)

    def rewind(self, step: int) -> None:
        self.curves.rewind(step)

    @property
    def gradients(self) -> dict[str, np.ndarray]:
        """[N] the norm of each part's gradient, before clipping."""
        return self.curves.under(_GRADIENT)

    @property
    def updates(self) -> dict[str, np.ndarray]:
        """[N] how far each part's weights were moved, over how large they were."""
        return self.curves.under(_UPDATE)


class Processes(Reducer):
    """How much of its time each of several processes waits; `last` is the latest of all."""

    kinds = (RanksMeasured,)

    def __init__(self) -> None:
        self.curves = Curves()
        self.last: RanksMeasured | None = None

    def update(self, event: RanksMeasured) -> None:
        self.curves.add(event.step, {f"rank {each.rank}": each.waiting for each in event.ranks})
        self.last = event

    def rewind(self, step: int) -> None:
        self.curves.rewind(step)
        if self.last and self.last.step > step:
            self.last = None


_PART = "part/"


class MemoryByPart(Reducer):
    """What each part held in each watched step; `last` is the latest of all.

    A part's figure is the largest of those of the three passes, so that it does not jump where
    another pass becomes the fullest.
    """

    kinds = (MemoryProfiled,)

    def __init__(self) -> None:
        self.curves = Curves()
        self.last: MemoryProfiled | None = None

    def update(self, event: MemoryProfiled) -> None:
        self.last = event
        parts = {_PART + each.name: float(max(each.forward, each.backward, each.update))
                 for each in event.parts}  # fmt: skip
        self.curves.add(event.step, {"peak": float(sum(event.at_peak().values())), **parts,
                                     "process": event.process_bytes})  # fmt: skip

    def rewind(self, step: int) -> None:
        self.curves.rewind(step)
        if self.last and self.last.step > step:
            self.last = None

    @property
    def parts(self) -> dict[str, np.ndarray]:
        """[N] bytes of each part, the one that ever held most first."""
        found = self.curves.under(_PART)
        return dict(sorted(found.items(), key=lambda each: -float(np.nanmax(each[1]))))
