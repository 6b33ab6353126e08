"""A training run as it goes: a live panel in a terminal or notebook, elsewhere plain lines.

`Display` is an observer: it is called with events and never asks the trainer anything. The panel is
drawn twice a second at most, whatever the pace of events; lines appear at evaluations and
every few seconds.
"""

import threading
import time
from types import TracebackType

from rich.console import Console, ConsoleDimensions, RenderableType
from rich.live import Live
from rich.text import Text

from coterie.foundation.events import Event, Notice
from coterie.foundation.printable import printable
from coterie.train.events import Evaluated, RunEnded, RunStarted, Sampled, StepDone, StepsProfiled
from coterie.visualise import figures
from coterie.visualise.memory import memory_table
from coterie.visualise.notebook import NotebookCell, in_notebook
from coterie.visualise.panel import panel
from coterie.visualise.profile import profile_tables
from coterie.visualise.reducers.loads import Loads
from coterie.visualise.reducers.steps import MemoryByPart, Pace
from coterie.visualise.sections.section import added_lines, added_reducers
from coterie.visualise.series import Series

REFRESHES_PER_SECOND = 2  # one drawing takes 6 ms: half a per cent of two cores
_SAMPLE_LINES = 6
_NOTEBOOK = ConsoleDimensions(100, 30)


class Display:
    """Shows a run's events on a console. Use it as a context manager and call it with events.

    Args:
        console: where to; a live panel if it is a notebook or a terminal that can move its cursor.
        every_seconds: least time between two plain lines about steps.
    """

    def __init__(self, console: Console, *, every_seconds: float = 5.0) -> None:
        self.console = console
        self.series = Series(guests=added_reducers())
        self.every_seconds = every_seconds
        self._told = 0.0  # time of the last plain line about a step
        self._began = time.time()
        self._lock = threading.Lock()  # the panel is drawn by rich's own thread
        self._in_notebook = in_notebook(console)
        self._live = self._make_live()

    def _make_live(self) -> Live | NotebookCell | None:
        console = self.console
        if self._in_notebook:
            return NotebookCell(self._draw, _NOTEBOOK.width, 1 / REFRESHES_PER_SECOND)
        able = console.is_terminal and not console.is_dumb_terminal
        if not able or console.options.ascii_only:
            return None
        return Live(
            console=self.console,
            get_renderable=self._draw,
            refresh_per_second=REFRESHES_PER_SECOND,
            vertical_overflow="crop",
        )

    @property
    def is_live(self) -> bool:
        """Whether there is a panel rather than lines."""
        return self._live is not None

    def __enter__(self) -> "Display":
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()  # draws once more, so that the last state stays on the screen

    def __call__(self, event: Event) -> None:
        """Take in one event."""
        with self._lock:
            self.series.update(event)
            if isinstance(event, RunStarted):
                self._began = event.time
        if isinstance(self._live, NotebookCell):
            self._live.tick()
        if isinstance(event, StepsProfiled):
            for table in profile_tables(event):
                self.console.print(table)
            self._line(f"Trace: {event.trace} (open it at https://ui.perfetto.dev)")
        elif self._live:
            self._tell_above(event)
        else:
            self._tell(event)
        if isinstance(event, RunEnded):
            self._tell_memory()

    def _draw(self) -> RenderableType:
        with self._lock:
            ended = self.series.ended
            elapsed = ended.seconds if ended else max(0.0, time.time() - self._began)
            size = _NOTEBOOK if self._in_notebook else self.console.size
            return panel(self.series, elapsed, size.width, size.height)

    def _tell_above(self, event: Event) -> None:
        """Write what shall stay beside the panel: evaluations and warnings."""
        if isinstance(event, Evaluated):
            self.console.print(Text(self._evaluation(event), style="dim"), soft_wrap=True)
        elif isinstance(event, Notice) and event.level == "warning":
            text = Text(f"warning: {printable(event.message)}", style="yellow")
            self.console.print(text, soft_wrap=True)

    def _tell(self, event: Event) -> None:
        """Write an event as plain lines, or nothing."""
        match event:
            case RunStarted():
                self._line(_beginning(event))
            case StepDone():
                last = event.step >= self._steps
                if last or event.time - self._told >= self.every_seconds:
                    self._told = event.time
                    self._line(self._step(event))
            case Evaluated():
                self._line(self._evaluation(event))
            case Sampled():
                body = printable(event.prompt + event.text.removeprefix(event.prompt))
                for line in [x for x in body.split("\n") if x.strip()][:_SAMPLE_LINES]:
                    self._line(f"    | {line}")
            case Notice():
                self._line(f"{'warning' if event.level == 'warning' else 'note'}: {event.message}")
            case RunEnded():
                self._line(_ending(event))

    def _tell_memory(self) -> None:
        """Write where the memory of the latest watched step went, if any was watched."""
        last = self.series[MemoryByPart].last
        if last is None:
            return
        self.console.print(memory_table(last))
        if last.snapshot is not None:
            self._line(f"Snapshot: {last.snapshot} (open it at https://pytorch.org/memory_viz)")

    def _step(self, event: StepDone) -> str:
        parts = [
            self._place(event.step),
            f"loss {figures.loss(event.loss)}",
            f"rate {figures.significant(event.learning_rate)}",
            f"gradient {figures.significant(event.gradient_norm)}",
            f"{figures.count(event.tokens_per_second)} tokens/s",
        ]
        if event.mfu is not None:
            parts.append(f"MFU {figures.percent(event.mfu)}")
        imbalance, left = self.series[Loads].imbalance, self.series[Pace].seconds_left
        if imbalance is not None:
            parts.append(f"load max/mean {imbalance:.2f}")
        if left is not None:
            parts.append(f"{figures.clock(max(1, left))} left")
        parts += [f"{title} {line}" for title, line in added_lines(self.series)]
        return "  ".join(parts)

    def _evaluation(self, event: Evaluated) -> str:
        parts = [
            self._place(event.step),
            f"{figures.split_name(event.split)} loss {figures.loss(event.loss)}",
        ]
        if figures.loss(event.nats_per_character) not in ("–", figures.loss(event.loss)):
            parts.append(f"{figures.loss(event.nats_per_character)} nats per character")
        if self.series.best is event:
            parts.append("the best so far")
        return "  ".join(parts)

    @property
    def _steps(self) -> int:
        return self.series.start.steps if self.series.start else 0

    def _place(self, step: int) -> str:
        total, start = f"{self._steps:,}", self.series.start
        epoch = start.epoch_at(step) if start else ""
        return f"step {step:>{len(total)},}/{total}{'  ' * bool(epoch)}{epoch}"

    def _line(self, line: str) -> None:
        """Write one line without markup, colour or wrapping, in what the console can encode."""
        encoding = self.console.encoding or "utf-8"
        safe = (
            printable(line).replace(figures.MINUS, "-").encode(encoding, "replace").decode(encoding)
        )
        self.console.print(
            Text(safe), soft_wrap=True, highlight=False, markup=False, no_wrap=True, crop=False
        )


def _beginning(event: RunStarted) -> str:
    epochs = "" if event.epochs is None else f" in {event.epochs:,} epochs"
    resumed = "" if event.resumed_from is None else f", resumed from step {event.resumed_from:,}"
    return (
        f"{event.name}: preset {event.preset}, {event.parameters:,} parameters "
        f"({event.active_parameters:,} active), {event.steps:,} steps of "
        f"{event.tokens_per_step:,} tokens{epochs}, {event.device}, {event.precision}{resumed}"
    )


def _ending(event: RunEnded) -> str:
    ending = f"{event.status} at step {event.step:,} after {figures.duration(event.seconds)}"
    return f"{ending}: {event.message}" if event.message else ending
