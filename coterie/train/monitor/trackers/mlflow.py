"""MLflow: a run's numbers sent to a tracking server or folder."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Literal

from pydantic import Field

from coterie.foundation.errors import require
from coterie.foundation.events import Event, step_of
from coterie.foundation.runs import RunDirectory
from coterie.foundation.settings import Settings
from coterie.train.events import RunEnded, RunStarted


class MLflow(Settings):
    """Numbers for MLflow; without an address, MLflow's own default place is used."""

    kind: Literal["mlflow"] = "mlflow"
    address: str | None = Field(default=None, description="tracking server or folder")
    experiment: str = Field(default="coterie", description="name that runs are grouped under")

    def build(self, run: RunDirectory) -> MLflowWriter:
        """Return an observer that sends numbers to MLflow.

        Raises:
            MissingExtraError: mlflow is not installed.
        """
        return MLflowWriter(require("mlflow", extra="mlflow"), self, run)


class MLflowWriter:
    """Sends events by the `mlflow` package's fluent calls."""

    _STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}

    def __init__(self, mlflow: ModuleType | Any, settings: MLflow, run: RunDirectory) -> None:
        self._mlflow = mlflow
        if settings.address is not None:
            mlflow.set_tracking_uri(settings.address)
        mlflow.set_experiment(settings.experiment)
        mlflow.start_run(run_name=run.name)
        self._open = True

    def __call__(self, event: Event) -> None:
        """Send an event's numbers."""
        if isinstance(event, RunStarted):
            about = {"preset": event.preset, "parameters": event.parameters,
                     "active_parameters": event.active_parameters,
                     "precision": event.precision}  # fmt: skip
            self._mlflow.log_params(about)
        if numbers := event.numbers():
            self._mlflow.log_metrics(numbers, step=step_of(event))
        if isinstance(event, RunEnded):
            self._end(self._STATUS[event.status])

    def close(self) -> None:
        """End the run there if it has not ended."""
        self._end("FAILED")

    def _end(self, status: str) -> None:
        if self._open:
            self._open = False
            self._mlflow.end_run(status=status)
