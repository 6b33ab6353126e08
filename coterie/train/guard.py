"""What a run rests on, watched while it trains: its directory, its record, its text.

A directory that was removed is noticed by nobody who only appends to open files and makes missing
folders anew; so its identity is compared. What is lost is told, and the model saved elsewhere.
"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from coterie.foundation.errors import CoterieError, StoreError, TrainingError
from coterie.foundation.layers import dump_yaml
from coterie.foundation.runs import RunDirectory
from coterie.train.monitor.publish import Publisher
from coterie.train.resume import save_session
from coterie.train.session import Session

_SECONDS = 1.0  # between looks from within the steps


class LostRunError(TrainingError):
    """The run's directory is not there any more, or cannot be written to."""


class Guard:
    """Looks after a run; made when its directory and store stand."""

    def __init__(self, session: Session, publish: Publisher) -> None:
        self._session = session
        self._publish = publish
        self._run = session.run
        self._identity = _identity(self._run.path)
        self._looked = time.monotonic()

    def look(self) -> None:
        """Check if the last time is long enough ago; cheap enough for every step."""
        alone = self._session.group.world == 1  # else time says each process something else
        if alone and time.monotonic() - self._looked >= _SECONDS:
            self.check()

    def check(self) -> None:
        """Make sure that everything is as it was; mend what can be.

        Raises:
            LostRunError: the run's directory is gone, another, or cannot be written to.
            TrainingError: the text that is trained on was changed.
        """
        self._looked = time.monotonic()
        self._session.group.first(self._check)

    def _check(self) -> None:
        path = self._run.path
        if self._identity is None or _identity(path) != self._identity:
            raise LostRunError(f"The run's directory {path} was removed or replaced.")
        if not os.access(path, os.W_OK | os.X_OK):
            raise LostRunError(f"The run's directory {path} cannot be written to any more.")
        if self._publish.reopen(self._run):
            self._publish.notice(
                f"{self._run.events} was removed or replaced; the record goes on there.",
                warning=True,
            )
        if not self._run.config.exists():
            self._run.write_config(dump_yaml(self._session.settings))
            self._publish.notice(f"{self._run.config} was removed; it was written again.")
        try:
            self._session.store.check_content()
        except StoreError as error:
            raise TrainingError(
                f"{error.message} It was changed after training began, so nothing is saved of the "
                "steps that may have read it.",
                hint="Restore the text or prepare it again, then go on from the latest checkpoint: "
                f"coterie train --resume {self._run.name}",
            ) from error

    def rescue(self, reason: CoterieError) -> TrainingError | None:
        """Save the run as it is now in another place; None if there is none.

        Args:
            reason: why it cannot be saved in its own.
        """
        group, places = self._session.group, iter(self._places())

        def settle(place: Path) -> None:
            run = RunDirectory(place)
            run.write_config(dump_yaml(self._session.settings))
            self._publish.move(run)

        while (place := group.first(lambda: next(places, None))) is not None:
            try:
                saved = save_session(self._session, place / "checkpoints")
                group.first(functools.partial(settle, place))
            except (CoterieError, OSError):
                group.first(functools.partial(shutil.rmtree, place, ignore_errors=True))
                continue
            return TrainingError(
                f"{reason.message} The model after step {self._session.progress.step:,} was saved "
                f"in {saved}.",
                hint=f"Go on with: coterie train --resume {place}",
            )
        return None

    def _places(self) -> Iterator[Path]:
        """Yield fresh directories to try: beside the run's, then where temporary files go."""
        name = f"{self._run.name}.rescued"
        for parent in (self._run.path.absolute().parent, Path(tempfile.gettempdir())):
            number, place = 1, parent / name
            while place.exists():
                number += 1
                place = parent / f"{name}-{number}"
            try:
                (place / "checkpoints").mkdir(parents=True)
                (place / "samples").mkdir()
            except OSError:
                continue
            yield place


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what stays the same as long as a directory is the same one."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
