"""How a run went besides its numbers: starts and end, notices, checkpoints, what was unreadable."""

from collections import Counter, deque

from coterie.foundation.events import Event, Notice, SkippedLine, Unknown
from coterie.train.events import (
    CheckpointDamaged,
    CheckpointSaved,
    DataDescribed,
    RunEnded,
    RunStarted,
)
from coterie.visualise.reducers.base import Reducer
from coterie.visualise.reducers.thinned import Thinned

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
