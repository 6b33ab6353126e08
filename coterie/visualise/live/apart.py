"""A text that another process writes, so that drawing it takes no time from the model.

In one process the threads of the model and of the view would take turns: a picture is made of ten
thousand calls of Python, and so is a token.
"""

import multiprocessing
import signal
from collections.abc import Callable
from itertools import islice
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from coterie.foundation.errors import CoterieError, UserError
from coterie.foundation.traces import Trace, TraceHeader
from coterie.visualise.live.source import Experts, LiveText, Store

_SECONDS = 1 / 60  # between looks at what there is to send
_PATIENCE = 10.0  # seconds for a process to end
_STATE = ("version", "problem", "recording", "writing", "paused", "can_write", "speed", "memory")


class TextApart:
    """What is there of a `LiveText` in another process, which is asked for all that it does.

    Args:
        make: returns the text there; a function that has a name, as its arguments have, elsewhere.

    Raises:
        UserError: what `make` raised.
        CoterieError: the process ended before there was a text.
    """

    header: TraceHeader
    version: int
    problem: str
    recording: Path | None
    writing: bool
    paused: bool
    can_write: bool
    speed: float | None
    memory: int | None

    def __init__(self, make: Callable[..., LiveText], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, there = context.Pipe()
        self._process: BaseProcess = context.Process(
            target=_serve, args=(there, make, arguments), daemon=True
        )
        self._process.start()
        there.close()  # so that the end of the process is the end of the pipe
        self.problem, self._store, self._ending = "", None, None
        self._answer()
        if self._store is None:
            raise CoterieError(self.problem, hint="What it said of it stands above.")

    @property
    def trace(self) -> Trace:
        """All that has come."""
        try:
            while not self._connection.closed and self._connection.poll():
                self._take_in(self._connection.recv())
        except (EOFError, OSError):
            self._ended()
        assert self._store is not None
        return self._store.trace(self.header, self._ending)

    def pause(self) -> None:
        self._ask("pause")

    def go(self) -> None:
        self._ask("go")

    def step(self) -> None:
        self._ask("step")

    def go_on(self, at: int, masked: Experts, forced: Experts) -> None:
        """Read the token at a place again with a hand in it; see `LiveText.go_on`."""
        self._ask("go_on", at, masked, forced)

    def record(self, path: Path) -> None:
        """Write what is there to a file, and what comes; see `LiveText.record`."""
        self._ask("record", path)

    def end_record(self) -> None:
        self._ask("end_record")

    def close(self) -> None:
        """Stop writing, and end the process."""
        self._ask("close")
        self._connection.close()
        self._process.join(_PATIENCE)
        if self._process.is_alive():
            self._process.kill()

    def _ask(self, name: str, *arguments: Any) -> None:
        try:
            self._connection.send((name, arguments))
        except OSError:
            self._ended()
            return
        self._answer()

    def _answer(self) -> None:
        """Wait for an answer, and raise it where it is an error."""
        try:
            while not isinstance(found := self._connection.recv(), _Answer):
                self._take_in(found)
        except (EOFError, OSError):
            self._ended()
            return
        if found.error is not None:
            raise found.error
        if found.news is not None:
            self._take_in(found.news)

    def _take_in(self, news: "_News") -> None:
        vars(self).update(news.state)
        self._ending = news.ending
        self._store = self._store or Store(self.header)
        self._store.put(news.start, news.records, news.texts, news.words)

    def _ended(self) -> None:
        """Say that the process is gone, unless it was told to go."""
        if not self._connection.closed:
            self._connection.close()
            self._process.join(_PATIENCE)
            code = self._process.exitcode
            self.writing, self.can_write, self.recording = False, False, None
            self.problem = f"The process with the model ended (exit status {code})."
            self.version = -1


class _News:
    """What changed of a text since the last news of it."""

    def __init__(self, live: LiveText, last: "_News | None", rewritten: int | None) -> None:
        self.state = {name: getattr(live, name) for name in _STATE}
        trace, known = live.trace, last.count if last else 0
        self.start = known if rewritten is None else min(known, rewritten)
        self.header, self.count, self.ending = trace.header, len(trace.texts), trace.ending
        if last is None or last.header is not trace.header:  # it tells a text that is begun anew
            self.state["header"] = trace.header
        self.named, named = len(trace.words), last.named if last else 0
        self.records, self.texts = trace.records[self.start :].copy(), trace.texts[self.start :]
        self.words = dict(islice(list(trace.words.items()), named, None))


class _Answer:
    def __init__(self, news: _News | None = None, error: CoterieError | None = None) -> None:
        self.news, self.error = news, error


def _serve(connection: Connection, make: Callable[..., LiveText], arguments: Any) -> None:
    """Make a text and do what is asked, until nobody is there any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the keys are the view's
    try:
        live = make(*arguments)
    except CoterieError as error:
        connection.send(_Answer(error=_plain(error)))
        return
    news = _News(live, None, None)
    connection.send(_Answer(news))
    try:
        while True:
            if connection.poll(_SECONDS):
                name, given = connection.recv()
                try:
                    getattr(live, name)(*given)
                except UserError as error:
                    connection.send(_Answer(error=_plain(error)))
                    continue
                news = _News(live, news, given[0] if name == "go_on" else None)
                connection.send(_Answer(news))
            elif live.version != news.state["version"]:
                news = _News(live, news, None)
                connection.send(news)
    except (EOFError, OSError):
        live.close()


def _plain(error: CoterieError) -> CoterieError:
    """Return an error that passes through a pipe whatever its class takes."""
    return (UserError if isinstance(error, UserError) else CoterieError)(error.message, error.hint)
