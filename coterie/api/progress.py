"""Bars for what takes a while: on a terminal, in a notebook, and nowhere else."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from coterie.visualise.console import stderr
from coterie.visualise.notebook import NotebookCell, in_notebook

_STAGES = {"reading": "Reading", "training": "Training the tokenizer", "tokenizing": "Tokenizing",
           "checking": "Checking the text"}  # fmt: skip
_OFTEN = 0.05  # seconds


@contextmanager
def stage_bar() -> Iterator[Callable[[str, int, int | None], None]]:
    """Yield a callback (stage, characters done, characters in all) that draws a bar."""
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
        TimeRemainingColumn(),
        console=stderr,
        transient=True,
        disable=not stderr.is_terminal,
    )
    tasks: dict[str, TaskID] = {}
    with _shown(bar) as redraw:
        shown = 0.0

        def tell(stage: str, done: int, total: int | None) -> None:
            nonlocal shown
            now = time.monotonic()
            if stage in tasks and now < shown + _OFTEN:
                return  # a short document costs less than a bar that is told of it
            shown = now
            if stage not in tasks:
                for earlier in tasks.values():
                    bar.remove_task(earlier)
                tasks.clear()
                tasks[stage] = bar.add_task(_STAGES.get(stage, stage), total=None, figures="")
            figures = f"{done / 1e6:,.1f} M characters" if done else ""
            bar.update(tasks[stage], completed=done, total=total, figures=figures)
            redraw()

        yield tell


@contextmanager
def count_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a callback that is told how much of `total` is done, and draws a bar."""
    bar = Progress(console=stderr, transient=True, disable=not stderr.is_terminal)
    task = bar.add_task(what, total=total)
    with _shown(bar) as redraw:

        def tell(done: int) -> None:
            bar.update(task, completed=done)
            redraw()

        yield tell


@contextmanager
def _shown(bar: Progress) -> Iterator[Callable[[], None]]:
    """Show a bar while the block runs; yield what redraws it in a notebook."""
    if not in_notebook(stderr):
        with bar:
            yield lambda: None
        return
    cell = NotebookCell(bar.get_renderable)
    cell.start()
    try:
        yield cell.tick
    finally:
        cell.stop()
