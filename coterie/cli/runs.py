"""`coterie runs`: what has been trained here, and how it went."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from typing import Any

from rich.table import Table

from coterie.cli.console import console, emit_json, facts, next_step, stderr
from coterie.cli.words import one_target, read_words
from coterie.foundation.errors import RunError, SettingsError
from coterie.foundation.event_log import read_record
from coterie.foundation.layers import file_layer
from coterie.foundation.runs import RunDirectory, find_run, runs_root
from coterie.foundation.runs import list_runs as all_runs
from coterie.train.events import Evaluated, RunEnded, RunStarted, StepDone


def list_runs(*, json: bool = False) -> None:
    """List the runs, the one active last at the end.

    Parameters
    ----------
    json
        Print JSON.
    """
    rows = [summary(run) for run in all_runs()]
    if json:
        emit_json(rows)
        return
    if not rows:
        stderr.print(f"No runs in {runs_root()}/ yet.")
        next_step("coterie train quickstart  # train the first one")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("run", "preset", "status"):
        table.add_column(column)
    for column in ("step", "loss", "valid", "tokens", "last active"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row["name"], row["preset"], row["status"], f"{row['step']}/{row['steps']}",
            _loss(row["loss"]), _loss(row["validation_loss"]), f"{row['tokens']:,}", row["active"],
        )  # fmt: skip
    console.print(table)
    complain(problem for row in rows for problem in row["problems"])
    next_step(f"coterie runs show {rows[-1]['name']}")


def show(*words: str, json: bool = False) -> None:
    """Show one run: `coterie runs show RUN`; RUN is a name, a path or `latest`.

    Parameters
    ----------
    words
        The run.
    json
        Print JSON.
    """
    run = find_run(one_target(read_words(words), "run", "For example: coterie runs show latest"))
    row = summary(run)
    row["checkpoints"] = sorted(path.name for path in run.checkpoints.glob("step-*"))
    row["files"] = [
        str(path) for path in (run.config, run.events, run.report, run.samples) if path.exists()
    ]
    if json:
        emit_json(row)
        return
    complain(row.pop("problems"))
    console.print(facts((key.replace("_", " "), _shown(value)) for key, value in row.items()))
    steps = [f"coterie report {run.name}  # one page about it"]
    if row["checkpoints"]:
        steps.append(f'coterie generate {run.name} "Once"  # write text with it')
    next_step(*steps)


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


def complain(problems: Iterable[str]) -> None:
    """Say what of a run could not be read, on standard error."""
    for problem in problems:
        stderr.print(problem, style="problem", soft_wrap=True)


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


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(value)
    if isinstance(value, float) or value is None:
        return _loss(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
