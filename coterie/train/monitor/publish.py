"""Handing events on: first to the run's own record, then to every observer.

The record is the run's truth, so failing to write it stops the run. An observer is a guest: when it
fails, a warning says so, it hears no more, and the run goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType

from coterie.foundation.event_log import EventLog
from coterie.foundation.events import Event, Notice
from coterie.foundation.runs import RunDirectory
from coterie.train.randomness import set_aside

Observer = Callable[[Event], None]


class Publisher:
    """Appends events to a run's record and tells observers.

    An observer may have two more methods: `attach(publish)`, called before any event with what
    publishes events of its own, and `close()`, called when the run ends.
    """

    def __init__(self, run: RunDirectory, observers: Sequence[Observer]) -> None:
        self._log = EventLog(run.events)
        self._observers = list(observers)
        for observer in observers:
            self._call(observer, "attach", self)

    def __call__(self, event: Event) -> None:
        """Publish one event."""
        self._log.append(event)
        if not self._observers:
            return
        with set_aside():
            for observer in tuple(self._observers):
                self._tell(observer, event)

    def move(self, run: RunDirectory) -> None:
        """Go on with the record in another run's directory."""
        self._log.move(run.events)

    def reopen(self, run: RunDirectory) -> bool:
        """Go on in the run's record where it was removed or replaced; return whether it was."""
        if self._log.is_in_place():
            return False
        self._log.move(run.events)
        return True

    def record(self, message: str) -> None:
        """Write a warning down from another thread, without observers, which draw numbers."""
        self._log.append(Notice(level="warning", message=message))

    def notice(self, message: str, *, warning: bool = False) -> None:
        """Publish a sentence for the reader."""
        self(Notice(level="warning" if warning else "info", message=message))

    def _tell(self, observer: Observer, event: Event) -> None:
        try:
            observer(event)
        except Exception as error:
            self._dismiss(observer, error)

    def _dismiss(self, observer: Observer, error: Exception) -> None:
        """Stop telling an observer that failed, and say so to the others."""
        if observer in self._observers:
            self._observers.remove(observer)
        reason = (str(error) or "no message").splitlines()[0]
        self.notice(
            f"{_name(observer)} failed and is not told anything more in this run: "
            f"{type(error).__name__}: {reason}",
            warning=True,
        )

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for observer in tuple(self._observers):
            self._call(observer, "close")
        self._log.close()

    def _call(self, observer: Observer, method: str, *arguments: object) -> None:
        """Call a method that an observer may have."""
        found = getattr(observer, method, None)
        if callable(found):
            try:
                found(*arguments)
            except Exception as error:
                self._dismiss(observer, error)


class Silent(Publisher):
    """What processes but the first publish to: the record is the first one's."""

    def __init__(self, run: RunDirectory) -> None:
        self._run, self._observers = run, []

    def __call__(self, event: Event) -> None:
        """Say nothing."""

    def record(self, message: str) -> None:
        """Say nothing."""

    def move(self, run: RunDirectory) -> None:
        """Have no record to move."""

    def reopen(self, run: RunDirectory) -> bool:
        """Have no record to look after."""
        return False

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close nothing."""


def _name(observer: Observer) -> str:
    return getattr(observer, "__name__", type(observer).__name__)
