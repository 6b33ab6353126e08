"""`coterie watch`: look at a run while it trains; and how views of the terminal are opened."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from coterie.cli.console import console, next_step, note
from coterie.cli.web import NO_PAGE, PageFlags, serve_runs
from coterie.cli.words import one_target, read_words
from coterie.foundation.errors import UserError, require
from coterie.foundation.locks import owner_of
from coterie.foundation.runs import RunDirectory, find_run

if TYPE_CHECKING:
    from coterie.visualise.live.apart import TextApart
    from coterie.visualise.live.source import LiveText


def watch(
    *words: Annotated[str, Parameter(allow_leading_hyphen=True)],
    plain: bool = False,
    page: PageFlags = NO_PAGE,
) -> None:
    """Look at a run while it trains, or at one that has ended: `coterie watch RUN`.

    It only reads the run's record, so any number may look, from any terminal, also at a run on a
    shared folder. Looks into routing are there if the run has `train.watch_every`.

    Parameters
    ----------
    words
        The run: its name, path or `latest`.
    plain
        Print lines as the run goes, without colour: for pipes and logs.
    """
    name = one_target(read_words(words), "run", "For example: coterie watch latest", "latest")
    run = find_run(name)
    if page.export is not None:
        raise UserError("A run's page is its report.", hint=f"coterie report {run.name}")
    if page.control and not page.web:
        raise UserError("--control belongs to --web: its page may stop and resume runs then.")
    if page.web:
        serve_runs(run, page)
        return
    if not run.events.exists():
        raise UserError(f"The run {run.name} has recorded nothing yet.")
    if plain:
        _tell(run)
        return
    require_terminal(f"coterie watch {run.name} --plain")
    from coterie.visualise.live.training import TrainingApp

    TrainingApp(run, lambda: owner_of(run.path) is not None).run()
    next_step(f"coterie report {run.name}  # one page about it")


def _tell(run: RunDirectory) -> None:
    """Print what a run has recorded and records, until it ends or nobody trains it any more."""
    from coterie.foundation.event_log import tail
    from coterie.foundation.events import SkippedLine
    from coterie.train.events import RoutingWatched, RunEnded
    from coterie.visualise.console import SafeConsole
    from coterie.visualise.terminal import Display

    out = SafeConsole(no_color=True, force_terminal=False)
    ended = False
    with Display(out) as display:
        for event in tail(run.events, stop=lambda: owner_of(run.path) is None):
            display(event)
            ended = isinstance(event, RunEnded)
            if isinstance(event, SkippedLine):
                note(f"line {event.number:,} of {run.events} was passed over: {event.reason}.")
            if isinstance(event, RoutingWatched):
                out.print(_look(event), soft_wrap=True)
    if not ended:
        note("no end was recorded: the run stopped without a word, or trains on another machine.")


def _look(event: Any) -> str:
    """Return a line on a look into routing."""
    told = [
        f"layer {each.layer}: margin {each.margin:.3g}, token {each.token:.3g} nats "
        f"(dealt {each.token_null:.3g})"
        for each in event.layers if each.experts
    ]  # fmt: skip
    return f"    routing at step {event.step:,}  {'  '.join(told)}"


def require_terminal(plain: str) -> None:
    """Refuse to open a view where there is no terminal for it, or no textual.

    Raises:
        UserError: there is no terminal; the hint is the command that prints instead.
        MissingExtraError: textual is not installed.
    """
    shown = console.is_terminal and not console.is_dumb_terminal
    for name, there in (("output", shown), ("input", sys.stdin.isatty())):
        if not there:
            raise UserError(f"This view needs a terminal, and standard {name} is none.",
                            hint=f"Print it: {plain}")  # fmt: skip
    require("textual", "watch")


def open_text(live: LiveText | TextApart, asked: dict[str, Any], at: int | None) -> None:
    """Show a text until somebody quits."""
    from coterie.visualise.live.writing import WritingApp

    WritingApp(live, at=at, **asked).run()
