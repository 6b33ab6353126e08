"""A run's events as a file: one JSON line each, appended, read whole or followed while it grows."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from coterie.foundation.errors import RunError
from coterie.foundation.events import (
    Event,
    LogRestarted,
    SkippedLine,
    parse_event,
    resumed_from,
    step_of,
)
from coterie.foundation.files import explain_disk_errors, open_append

_MARK = 64  # bytes before the place reached by which a file is known again


class EventLog:
    """Appends events to a file, one JSON line each, passed to the system at once.

    A line that a crash tore is closed off when the log is opened again, so that it costs one record
    and not two.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._file = open_append(self.path, RunError)

    def append(self, event: Event) -> None:
        """Write one event.

        Raises:
            UserError: the disk is full.
        """
        with explain_disk_errors(str(self.path), whole=False):
            line = event.model_dump_json(exclude_none=True) + "\n"
            with self._lock:  # a thread may tell of what the one that trains waits for
                self._file.write(line)
                self._file.flush()

    __call__ = append

    def is_in_place(self) -> bool:
        """Whether the file that is written to is still the one at its path."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), os.stat(self.path))
        except OSError:
            return False

    def move(self, path: Path | str) -> None:
        """Go on at another path; where there is nothing yet, what was written so far is copied.

        Raises:
            UserError: the disk is full or not writable.
        """
        path = Path(path)
        with explain_disk_errors(str(path)):
            earlier = ""
            if not path.exists():
                self._file.seek(0)
                earlier = self._file.read()
            file = open_append(path, RunError)
            file.write(earlier)
            file.flush()
        self._file.close()
        self.path, self._file = path, file

    def close(self) -> None:
        """Close the file; the log can be opened again later."""
        self._file.close()

    def __enter__(self) -> "EventLog":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class LogReader:
    """Reads a log piece by piece, each time from where the last piece ended.

    A line that cannot be read becomes a `SkippedLine` in its place. Where the file was cut, or
    replaced by another that does not go on from the same lines, a `LogRestarted` comes first and
    the file is read from its beginning.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._offset = self._line = 0
        self._mark = b""  # the bytes before the offset
        self._inode: int | None = None

    def read(self, *, final: bool = False) -> Iterator[Event]:
        """Yield the events of lines that were completed since the last call, oldest first.

        Args:
            final: also take a last line that no newline ends.

        Raises:
            RunError: what is at the path is not a regular file, or cannot be read.
        """
        if not self.path.exists():
            return
        if not self.path.is_file():
            raise RunError(f"{self.path} is not a regular file, so it is no record of a run.")
        try:
            with open(self.path, "rb") as file:
                if restarted := self._find_place(file):
                    yield restarted
                yield from self._read_lines(file, final)
        except OSError as error:
            raise RunError(f"{self.path} cannot be read: {error.strerror}.") from error

    def _find_place(self, file: IO[bytes]) -> LogRestarted | None:
        """Seek the offset if what comes before it is what was read, or else the beginning."""
        inode, earlier = os.fstat(file.fileno()).st_ino, self._inode
        self._inode = inode
        file.seek(self._offset - len(self._mark))
        if file.read(len(self._mark)) == self._mark:
            return None
        file.seek(0)
        self._offset = self._line = 0
        self._mark = b""
        return LogRestarted(reason="truncated" if inode == earlier else "replaced")

    def _read_lines(self, file: IO[bytes], final: bool) -> Iterator[Event]:
        for line in file:
            if not (line.endswith(b"\n") or final):
                return
            self._offset += len(line)
            self._line += 1
            self._mark = (self._mark + line)[-_MARK:]
            if line.isspace():
                continue
            try:
                event = parse_event(line)
            except ValueError as error:
                event = SkippedLine(number=self._line, reason=str(error))
            yield event


def tail(
    path: Path | str, *, stop: Callable[[], bool] = lambda: False, every: float = 0.5
) -> Iterator[Event]:
    """Yield a log's events, then wait for more: each as soon as its line is complete.

    Nothing is read twice. `SkippedLine` and `LogRestarted` come in their place among the events; a
    log that does not exist yet is waited for.

    Args:
        stop: asked before each look at the file; once it holds, what is complete is still yielded.
        every: seconds between looks.

    Raises:
        RunError: what is at the path is not a regular file, or cannot be read.
    """
    reader = LogReader(path)
    while True:
        last = stop()
        yield from reader.read()
        if last:
            return
        time.sleep(every)


@dataclass(frozen=True)
class Record:
    """A run's events, and the lines of its log that cannot be read."""

    path: Path
    events: list[Any]
    skipped: tuple[SkippedLine, ...]

    def complaints(self) -> list[str]:
        """Return a sentence on each skipped line, the first few of them."""
        return complaints(self.path, self.skipped, len(self.skipped))


def complaints(path: Path, skipped: Sequence[SkippedLine], count: int, most: int = 3) -> list[str]:
    """Return a sentence on each of the first skipped lines, and how many more there are.

    Args:
        skipped: the first of them, at least.
        most: how many have a sentence of their own.
    """
    shown = skipped[:most]
    sentences = [f"{path}: line {x.number:,} was passed over: {x.reason}." for x in shown]
    if (left := count - len(shown)) > 0:
        sentences.append(f"{path}: {left:,} more line{'s' * (left > 1)} were passed over.")
    return sentences


def read_record(path: Path | str) -> Record:
    """Read a run's events in order, and which lines cannot be read.

    Where the run was resumed from step s, earlier events beyond s are dropped: those steps were
    done again. Kinds that nothing declares are kept as `Unknown`.

    Raises:
        RunError: there is no such file, or it cannot be read at all.
    """
    path = Path(path)
    if not path.exists():
        raise RunError(f"{path} does not exist: the run has recorded nothing yet.")
    events: list[Any] = []
    skipped: list[SkippedLine] = []
    for event in LogReader(path).read(final=True):
        if isinstance(event, SkippedLine):
            skipped.append(event)
            continue
        if (start := resumed_from(event)) is not None:
            events = [old for old in events if step_of(old) <= start]
        events.append(event)
    return Record(path, events, tuple(skipped))


def read_events(path: Path | str) -> list[Any]:
    """Read a run's events in order, without a word on what was skipped; see `read_record`.

    Raises:
        RunError: there is no such file, or it cannot be read at all.
    """
    return read_record(path).events
