"""TensorBoard: scalars and samples under the run's own directory (`tensorboard --logdir runs`)."""

from __future__ import annotations

from typing import Any, Literal

from coterie.foundation.errors import require
from coterie.foundation.events import Event, step_of
from coterie.foundation.runs import RunDirectory
from coterie.foundation.settings import Settings
from coterie.train.events import RunStarted, Sampled


class TensorBoard(Settings):
    """Scalars and sampled texts for TensorBoard."""

    kind: Literal["tensorboard"] = "tensorboard"

    def build(self, run: RunDirectory) -> TensorBoardWriter:
        """Return an observer that writes to the run's `tensorboard` directory.

        Raises:
            MissingExtraError: tensorboard is not installed.
        """
        require("tensorboard", extra="tensorboard")
        return TensorBoardWriter(run)


class TensorBoardWriter:
    """Writes events by `torch.utils.tensorboard`; steps done again after a resume are purged."""

    def __init__(self, run: RunDirectory) -> None:
        self._folder = str(run.path / "tensorboard")
        self._module = require("torch.utils.tensorboard", extra="tensorboard")
        self._writer: Any = None

    def __call__(self, event: Event) -> None:
        """Write an event's numbers and texts."""
        if isinstance(event, RunStarted):
            purge = None if event.resumed_from is None else event.resumed_from + 1
            self.close()
            self._writer = self._module.SummaryWriter(self._folder, purge_step=purge)
        if self._writer is None:
            return
        step = step_of(event)
        for name, value in event.numbers().items():
            self._writer.add_scalar(name, value, step, walltime=event.time)
        if isinstance(event, Sampled):
            self._writer.add_text("sample", f"```\n{event.prompt}{event.text}\n```", step)

    def close(self) -> None:
        """Write out what is buffered."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
