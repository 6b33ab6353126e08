"""A text as it comes from a thread or stands in a record, for views that look again and again.

Views ask for a `Trace` of what is there; the writer goes on meanwhile, stops, takes one step, or
begins again from a token with experts masked or forced.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from coterie.foundation.errors import CoterieError, UserError
from coterie.foundation.traces import Trace, TraceHeader, TraceWriter
from coterie.visualise.live.memory import peak_memory

Experts = Mapping[int, tuple[int, ...]]
_CHOSEN = ("surprise", "entropy", "allowed", "before", "before_p", "after", "after_p")
_PACE = 64  # tokens that the speed is reckoned from


class Part(Protocol):
    """Some tokens of a text; see `coterie.generate.watched.Seen`."""

    @property
    def records(self) -> np.ndarray: ...
    @property
    def texts(self) -> list[str]: ...
    @property
    def words(self) -> Mapping[int, str]: ...


class Written(Protocol):
    """A text to be written; see `coterie.generate.watched.WatchedText`."""

    header: TraceHeader

    @property
    def finish_reason(self) -> str | None: ...
    def __iter__(self) -> Iterator[Part]: ...


class Write(Protocol):
    """Makes texts that go on from a place."""

    def __call__(
        self,
        prompt: Sequence[int],
        written: Sequence[int],
        masked: Experts,
        forced: Experts,
        steered_from: int,
    ) -> Written:
        """Return a text; see `coterie.api.model.Model.watch_with`."""
        ...


class Store:
    """The tokens of a text that grows."""

    def __init__(self, header: TraceHeader) -> None:
        self._records = np.empty(256, header.record_type())
        self._texts: list[str] = []
        self._words: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._texts)

    def put(
        self, start: int, records: np.ndarray, texts: list[str], words: Mapping[int, str]
    ) -> None:
        """Take tokens in, in the place of all that stand from `start` on."""
        stop = start + len(texts)
        if stop > len(self._records):
            grown = np.empty(2 * stop, self._records.dtype)
            grown[:start] = self._records[:start]
            self._records = grown
        self._records[start:stop] = records
        self._texts[start:] = texts
        self._words |= words

    def trace(self, header: TraceHeader, ending: str | None) -> Trace:
        return Trace(header, self._records[: len(self)], self._texts[:], self._words, ending)


class LiveText:
    """What is there of a text.

    Args:
        text: what writes it; None: it stands in a record.
        trace: the record.
        write: makes the texts that go on from a token; None: nothing does.

    Attributes:
        header: what is watched, with the experts that are masked or forced from now on.
        problem: why the writing failed; empty: it did not.
        recording: the file that tokens are written to.
        version: grows with all that changes.
    """

    def __init__(
        self, text: Written | None = None, trace: Trace | None = None, write: Write | None = None
    ) -> None:
        self._write = write
        self._lock = threading.Condition()
        self._budget: float = inf  # tokens that may still be written
        self._thread: threading.Thread | None = None
        self._writer: TraceWriter | None = None
        self.recording: Path | None = None
        self._moments: deque[float] = deque(maxlen=_PACE)
        self.version, self.problem = 0, ""
        self._ending: str | None = None
        source = text or trace
        assert source is not None
        self.header = source.header
        self._store = Store(self.header)
        if trace is not None:
            self._ending = trace.ending
            self._store.put(0, trace.records, trace.texts, trace.words)
        elif text is not None:
            self._start(text, 0)

    @property
    def trace(self) -> Trace:
        """All that is there."""
        with self._lock:
            return self._store.trace(self.header, self._ending)

    @property
    def memory(self) -> int | None:
        """The most bytes that the process of the model has held; None where it cannot be told."""
        return peak_memory()

    @property
    def can_write(self) -> bool:
        return self._write is not None

    @property
    def writing(self) -> bool:
        """Whether tokens may still come."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def paused(self) -> bool:
        return self._budget < inf

    @property
    def speed(self) -> float | None:
        """Tokens a second, of the latest."""
        moments = list(self._moments)
        if len(moments) < 2 or moments[-1] <= moments[0]:
            return None
        return (len(moments) - 1) / (moments[-1] - moments[0])

    def pause(self) -> None:
        with self._lock:
            self._budget = 0
            self._moments.clear()

    def go(self) -> None:
        with self._lock:
            self._budget = inf
            self._lock.notify_all()

    def step(self) -> None:
        """Let one more token be written."""
        with self._lock:
            self._budget = 1
            self._lock.notify_all()

    def go_on(self, at: int, masked: Experts, forced: Experts) -> None:
        """Read the token at a place again with these experts masked and forced, and write on.

        Raises:
            UserError: it cannot be steered so; the text stays as it is.
        """
        if self._write is None:
            raise UserError("A record is shown as it is: there is no model to go on with.")
        records = self.trace.records[: at + 1]
        if at >= len(records):
            raise UserError("That token was not read yet.")
        tokens, prompt = records["token"].tolist(), int((~records["generated"]).sum())
        text = self._write(tokens[:prompt], tokens[prompt:], masked, forced, at)
        self._stop()
        self._end_record("left")
        with self._lock:
            self.header, self._ending = text.header, None
            self._chosen = {name: records[name][at].copy() for name in _CHOSEN}
            self._store.put(at, records[:0], [], {})
            self.problem, self._budget = "", inf
            self._moments.clear()
            self.version += 1
        self._start(text, at)

    def record(self, path: Path) -> None:
        """Write what is there to a file, and what comes.

        Raises:
            UserError: there is such a file, or it cannot be written.
        """
        with self._lock:
            writer = TraceWriter(path, self.header)
            there = self._store.trace(self.header, self._ending)
            if there.texts:
                writer.add(there.records, there.texts, there.words)
            self._writer, self.recording = writer, path
            if not self.writing:
                self._end_record(self._ending or "left")

    def end_record(self) -> None:
        with self._lock:
            self._end_record("left")

    def close(self) -> None:
        """Stop writing."""
        self._stop()
        self._end_record("left")

    def _end_record(self, why: str) -> None:
        if self._writer is not None:
            with self._writer as writer:
                writer.end(why)
            self._writer = self.recording = None

    def _start(self, text: Written, known: int) -> None:
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(text, known, self._stopped), daemon=True
        )
        self._thread.start()

    def _stop(self) -> None:
        if self._thread is not None:
            self._stopped.set()
            with self._lock:
                self._lock.notify_all()
            self._thread.join()

    def _run(self, text: Written, known: int, stopped: threading.Event) -> None:
        """Write until the end, taking the tokens from place `known` on."""
        parts: Any = iter(text)  # a generator, which lets go of the model when it is closed
        at = 0
        try:
            for part in parts:
                first, at = at, at + len(part.texts)
                if at > known:  # what was there before takes no step
                    self._take(part, max(known - first, 0), known)
                    with self._lock:
                        self._lock.wait_for(lambda: self._budget > 0 or stopped.is_set())
                        self._budget -= 1
                if stopped.is_set():
                    return
            with self._lock:
                self._ending = text.finish_reason
                self._end_record(text.finish_reason or "left")
        except CoterieError as error:
            self.problem = str(error)
        finally:
            parts.close()
            self.version += 1

    def _take(self, part: Part, skipped: int, known: int) -> None:
        records, texts = part.records[skipped:], part.texts[skipped:]
        with self._lock:
            if len(self._store) == known and known:  # read again: what it was chosen from stays
                for name, value in self._chosen.items():
                    records[name][0] = value
            self._store.put(len(self._store), records, texts, part.words)
            if self._writer is not None:
                self._writer.add(records, texts, part.words)
            if records["read"][-1]:  # the last token of a text comes with the one before
                self._moments.append(time.monotonic())
            self.version += 1
