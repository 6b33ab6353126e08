"""What looks into the steps of a run while they are taken, where somebody asks for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from coterie.batch import TokenBatch
from coterie.train.monitor.publish import Publisher
from coterie.train.session import Session


class StepLook:
    """Looks into steps, which stay what they are. This one sees nothing and costs nothing."""

    def __init__(self, session: Session, publish: Publisher) -> None:
        self._session = session
        self._publish = publish

    def step(self) -> contextlib.AbstractContextManager[None]:
        """Surround a step, the wait for its batch and its loss included."""
        return contextlib.nullcontext()

    def read(self, batches: Iterator[TokenBatch]) -> Iterator[TokenBatch]:
        """Yield the batches of the run."""
        return batches

    def close(self) -> None:
        """Look no further; a run that ends early comes here too."""


Look = Callable[[Session, Publisher], StepLook]
"""Returns what looks into a run's steps; raises RunError where the run does not allow it."""
