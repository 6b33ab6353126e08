"""Weights & Biases: a run's numbers and samples sent to that service, or kept offline."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Literal

from pydantic import Field

from coterie.foundation.errors import require
from coterie.foundation.events import Event, step_of
from coterie.foundation.runs import RunDirectory
from coterie.foundation.settings import Settings
from coterie.train.events import RunStarted, Sampled


class WeightsAndBiases(Settings):
    """Numbers and sampled texts for Weights & Biases."""

    kind: Literal["wandb"] = "wandb"
    project: str = Field(default="coterie", description="project that runs are grouped under")
    mode: Literal["online", "offline"] = Field(
        default="online", description="send as it goes, or keep it for `wandb sync`"
    )

    def build(self, run: RunDirectory) -> WandbWriter:
        """Return an observer that sends numbers to Weights & Biases.

        Raises:
            MissingExtraError: wandb is not installed.
        """
        return WandbWriter(require("wandb", extra="wandb"), self, run)


class WandbWriter:
    """Sends events by the `wandb` package; a resumed run goes on under the same name."""

    def __init__(self, wandb: ModuleType | Any, settings: WeightsAndBiases, run: RunDirectory):
        self._wandb = wandb
        self._run = wandb.init(
            project=settings.project,
            name=run.name,
            id=run.name,
            resume="allow",
            mode=settings.mode,
            dir=str(run.path),
        )
        # Evaluations come after their step; an axis of its own keeps every record's true step.
        self._run.define_metric("*", step_metric="step")

    def __call__(self, event: Event) -> None:
        """Send an event's numbers and texts."""
        step = step_of(event)
        if isinstance(event, RunStarted):
            self._run.config.update(event.model_dump(mode="json"), allow_val_change=True)
        if numbers := event.numbers():
            self._run.log({"step": step, **numbers})
        if isinstance(event, Sampled):
            self._run.log({"step": step, "sample": self._wandb.Html(_as_html(event))})

    def close(self) -> None:
        """Say that the run is over."""
        self._run.finish()


def _as_html(sample: Sampled) -> str:
    text = f"{sample.prompt}{sample.text}"
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"<pre>{escaped}</pre>"
