"""When a run's checkpoints are written: at once, or in a thread while the next steps are taken.

In the background the tensors are copied to host memory at the step, and files, checksums, flushing
and retention follow in a thread, with the very code and bytes of the foreground. One checkpoint is
written at a time: the next one waits. A kill leaves the one before, for the new one has no name
until it is whole; what goes wrong while writing is raised at the next step.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from coterie.checkpoint import checkpoint_bytes
from coterie.foundation.errors import UserError
from coterie.train.events import CheckpointSaved
from coterie.train.guard import LostRunError
from coterie.train.monitor.publish import Publisher
from coterie.train.randomness import set_aside
from coterie.train.resume import checkpoint_writer
from coterie.train.session import Session

Written = tuple[Path, float]
"""A checkpoint, and the moment at which it was whole."""


@dataclass
class _Saving:
    """A checkpoint on its way to the disk; `stood`: for how long the steps stood still so far."""

    step: int
    began: float
    stood: float
    written: Future[Written]


class Saver:
    """Saves a session and tells so.

    Args:
        session: the run in training.
        publish: where events go.
        newest: the checkpoint that training goes on from, if any.
    """

    def __init__(self, session: Session, publish: Publisher, newest: Path | None) -> None:
        self._session, self._publish = session, publish
        self.newest = newest
        background = session.settings.train.save_in_background
        self._thread = ThreadPoolExecutor(1, "coterie-saving") if background else None
        self._saving: _Saving | None = None

    def save(self) -> None:
        """Save the session as it is now; in the background this returns before that is done.

        Raises:
            LostRunError: this checkpoint, or the one before it in the background, could not be
                written.
        """
        self.wait()
        began = time.perf_counter()
        with set_aside(), self._session.stepper.averaged():
            write = checkpoint_writer(self._session, copied=self._thread is not None)
            written = _done(write) if self._thread is None else self._thread.submit(_timed, write)
        stood = time.perf_counter() - began
        self._saving = _Saving(self._session.progress.step, began, stood, written)
        self.look()

    def look(self) -> None:
        """Tell of a checkpoint that has become whole meanwhile, or raise what went wrong."""
        if self._saving is None:
            return
        written = self._saving.written.done()
        if not self._session.ranks.any(not written):  # all processes tell at the same step
            self.wait()

    def wait(self) -> None:
        """Wait until what was saved is on the disk.

        Raises:
            LostRunError: it could not be written.
        """
        saving, self._saving = self._saving, None
        if saving is None:
            return
        begin = time.perf_counter()
        try:
            path, whole = saving.written.result()
        except UserError as error:
            raise LostRunError(error.message, hint=error.hint) from error
        self.newest = path
        self._publish(
            CheckpointSaved(
                step=saving.step,
                path=str(path),
                bytes=checkpoint_bytes(path),
                seconds=whole - saving.began,
                stood=saving.stood + time.perf_counter() - begin,
            )
        )

    def close(self) -> None:
        """Let what is being written become whole, whatever else went wrong, and end the thread."""
        with contextlib.suppress(Exception):  # another error ends the run, or this one did
            self.wait()
        if self._thread is not None:
            self._thread.shutdown()


def _timed(write: Callable[[], Path]) -> Written:
    path = write()
    return path, time.perf_counter()


def _done(write: Callable[[], Path]) -> Future[Written]:
    """Write now and return what came of it."""
    found: Future[Written] = Future()
    try:
        found.set_result(_timed(write))
    except UserError as error:
        found.set_exception(error)
    return found
