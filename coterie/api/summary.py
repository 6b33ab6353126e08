"""A run in figures, read from its record; what of it could not be read is told, not raised."""

import contextlib
import time
from typing import Any

from coterie.foundation.errors import RunError, SettingsError
from coterie.foundation.event_log import read_record
from coterie.foundation.layers import file_layer
from coterie.foundation.runs import RunDirectory
from coterie.train.events import Evaluated, RunEnded, RunStarted, StepDone


def summary(run: RunDirectory) -> dict[str, Any]:
    """Return a run's figures, read from its events, and what of it could not be read."""
    row: dict[str, Any] = {
        "name": run.name, "path": str(run.path), "preset": "?", "status": "not started",
        "step": 0, "steps": 0, "parameters": 0, "active_parameters": 0, "tokens": 0,
        "loss": None, "validation_loss": None, "device": "?",
        "active": _when(run), "problems": _problems(run),
    }  # fmt: skip
    if not run.events.exists():
        return row
    try:
        record = read_record(run.events)
    except RunError as error:
        row["problems"].append(error.message)
        return row
    row["problems"] += record.complaints()
    for event in record.events:
        if isinstance(event, RunStarted):
            row |= {"preset": event.preset, "steps": event.steps, "device": event.device}
            row |= {"parameters": event.parameters, "active_parameters": event.active_parameters}
            row["status"] = "running, or stopped without a word"
        elif isinstance(event, StepDone):
            row |= {"step": event.step, "loss": event.loss, "tokens": event.tokens}
        elif isinstance(event, Evaluated) and event.split == "valid":
            row["validation_loss"] = event.loss
        elif isinstance(event, RunEnded):
            row |= {"status": event.status, "step": event.step}
    return row


def _problems(run: RunDirectory) -> list[str]:
    """Return why a run's settings cannot be used, if they cannot."""
    try:
        file_layer(run.config)
    except SettingsError as error:
        return [error.message]
    return []


def _when(run: RunDirectory) -> str:
    for file in (run.events, run.config):
        with contextlib.suppress(OSError, OverflowError, ValueError):
            return time.strftime("%Y-%m-%d %H:%M", time.localtime(file.stat().st_mtime))
    return "?"
