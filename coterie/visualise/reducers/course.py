"""How a run went: start, end, notices, checkpoints, what was unreadable; evaluations, samples."""

import math
from collections import Counter, deque

from coterie.foundation.events import Event, Notice, SkippedLine, Unknown
from coterie.train.events import (
    CheckpointDamaged,
    CheckpointSaved,
    DataDescribed,
    Evaluated,
    RunEnded,
    RunStarted,
    Sampled,
)
from coterie.visualise.figures import HELD_OUT
from coterie.visualise.reducers.base import Reducer
from coterie.visualise.reducers.curves import Thinned

_MOST = 500  # notices, checkpoints and the like that are kept
_SKIPPED = _UNKNOWN_KINDS = 20  # that are told


class Course(Reducer):
    """Starts and resumptions, and the end unless the run was resumed since."""

    kinds = (RunStarted, RunEnded)

    def __init__(self) -> None:
        self.starts: list[RunStarted] = []
        self.ended: RunEnded | None = None

    def update(self, event: RunStarted | RunEnded) -> None:
        if isinstance(event, RunStarted):
            self.starts.append(event)
            self.ended = None
        else:
            self.ended = event


class Data(Reducer):
    """What the run reads, as it was told last."""

    kinds = (DataDescribed,)

    def __init__(self) -> None:
        self.told: DataDescribed | None = None

    def update(self, event: DataDescribed) -> None:
        self.told = event


class Notices(Reducer):
    """The latest notices."""

    kinds = (Notice,)

    def __init__(self) -> None:
        self.latest: deque[Notice] = deque(maxlen=_MOST)

    def update(self, event: Notice) -> None:
        self.latest.append(event)


class Checkpoints(Reducer):
    """Checkpoints saved, thinned in a long run, and the latest that were found damaged."""

    kinds = (CheckpointSaved, CheckpointDamaged)

    def __init__(self) -> None:
        self.saved: Thinned[CheckpointSaved] = Thinned(_MOST)
        self.damaged: deque[CheckpointDamaged] = deque(maxlen=_MOST)

    def update(self, event: CheckpointSaved | CheckpointDamaged) -> None:
        if isinstance(event, CheckpointSaved):
            self.saved.append(event)
        else:
            self.damaged.append(event)

    def rewind(self, step: int) -> None:
        self.saved.keep(lambda event: event.step <= step)


class Unread(Reducer):
    """What of the log no view can show: damaged lines, and events of unknown kinds."""

    kinds = (SkippedLine, Unknown)

    def __init__(self) -> None:
        self.skipped: list[SkippedLine] = []  # the first of them
        self.count = 0  # of all skipped lines
        self.unknown: Counter[str] = Counter()  # how many events of each kind

    def update(self, event: Event) -> None:
        match event:
            case SkippedLine():
                self.count += 1
                if len(self.skipped) < _SKIPPED:
                    self.skipped.append(event)
            case Unknown(kind=kind):
                if kind in self.unknown or len(self.unknown) < _UNKNOWN_KINDS:
                    self.unknown[kind] += 1


_EVALUATIONS = 2000  # most that are kept of a split
_SAMPLED_STEPS = 240  # most steps of which the samples are kept


class Evaluations(Reducer):
    """Evaluations by split, thinned in a long run, and the best of each split."""

    kinds = (Evaluated,)

    def __init__(self) -> None:
        self._splits: dict[str, Thinned[Evaluated]] = {}
        self._best: dict[str, Evaluated] = {}

    def update(self, event: Evaluated) -> None:
        self._splits.setdefault(event.split, Thinned(_EVALUATIONS)).append(event)
        best = self._best.get(event.split)
        if best is None or _order(event) < _order(best):
            self._best[event.split] = event

    def rewind(self, step: int) -> None:
        for found in self._splits.values():
            found.keep(lambda event: event.step <= step)
        self._splits = {name: found for name, found in self._splits.items() if len(found)}
        self._best = {
            name: best if (best := self._best[name]).step <= step else min(found, key=_order)
            for name, found in self._splits.items()
        }

    @property
    def splits(self) -> dict[str, tuple[Evaluated, ...]]:
        """Evaluations of each split, in order."""
        return {name: tuple(found) for name, found in self._splits.items()}

    @property
    def held_out(self) -> str | None:
        """The name of the held-out split, or else of the first split there is."""
        return next((name for name in (*HELD_OUT, *self._splits) if name in self._splits), None)

    @property
    def best(self) -> Evaluated | None:
        """The evaluation of the held-out split with the lowest loss."""
        return self._best.get(self.held_out or "")

    @property
    def last(self) -> Evaluated | None:
        """The latest evaluation of the held-out split."""
        return None if self.held_out is None else self._splits[self.held_out][-1]


def _order(event: Evaluated) -> float:
    return event.loss if math.isfinite(event.loss) else math.inf


class Samples(Reducer):
    """Texts by the step they were sampled at, thinned in a long run."""

    kinds = (Sampled,)

    def __init__(self) -> None:
        self._steps: Thinned[list[Sampled]] = Thinned(_SAMPLED_STEPS)

    def update(self, event: Sampled) -> None:
        if len(self._steps) and self._steps[-1][0].step == event.step:
            self._steps[-1].append(event)
        else:
            self._steps.append([event])

    def rewind(self, step: int) -> None:
        self._steps.keep(lambda samples: samples[0].step <= step)

    @property
    def steps(self) -> list[list[Sampled]]:
        """The samples of each step, in order."""
        return list(self._steps)

    @property
    def last(self) -> Sampled | None:
        return self._steps[-1][-1] if len(self._steps) else None
