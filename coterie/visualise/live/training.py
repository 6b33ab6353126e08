"""`coterie watch`: a run while it trains, from another terminal, or one that has ended."""

import math
import time
from collections.abc import Callable
from typing import Any, ClassVar

from rich.console import RenderableType
from rich.text import Text
from textual.binding import Binding, BindingType

from coterie.foundation.event_log import LogReader
from coterie.foundation.printable import printable
from coterie.foundation.runs import RunDirectory
from coterie.train.events import RoutingWatched
from coterie.visualise.figures import clock, count, loss, size
from coterie.visualise.live.app import Pane, ViewApp
from coterie.visualise.panel import processes, spark
from coterie.visualise.reducers.course import Samples
from coterie.visualise.reducers.curves import Thinned
from coterie.visualise.reducers.steps import Pace, Steps
from coterie.visualise.series import Series
from coterie.visualise.training_panels import (
    card_of_look,
    load_of_run,
    routers_of_look,
    stream_of_look,
    use_of_look,
)

_SECONDS = 0.5  # between looks at the file
_LOOKS = 512


class TrainingApp(ViewApp):
    """Shows a run's record, and what is added to it; any number may look at one run.

    Args:
        trains: asked whether some process trains the run now.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "pause", "Pause"),
        Binding("left", "step(-1)", "Back"), Binding("right", "step(1)", "On"),
        Binding("home", "jump(0)", "First"), Binding("end", "jump(1)", "Last"),
        Binding("up", "layer(-1)", "Layer"), Binding("down", "layer(1)", "Layer"),
        Binding("left_square_bracket,comma", "expert(-1)", "Expert"),
        Binding("right_square_bracket,full_stop", "expert(1)", "Expert"),
        Binding("question_mark,h", "help", "Help"),
        Binding("tab", "next_view(1)", "Next", priority=True),
        Binding("shift+tab", "next_view(-1)", "Before", priority=True),
        Binding("q,ctrl+c", "quit", "Quit", priority=True),
        *(Binding(str(number), f"view('{name}')", name) for number, name in enumerate(
            ("load", "use", "routers", "stream", "card", "text"), 1
        )),
    ]  # fmt: skip
    KEYS = "space hold  ←→ looks  ↑↓ layer  [ ] expert  1–6 tab view  ? help  q quit"
    MEANINGS: ClassVar = {
        "space": "hold the picture, or go on with what came meanwhile",
        "← →": "the look before, or the next; home and end: the first, the latest",
        "↑ ↓": "the layer that the card is of",
        "[ ]": "the expert whose card is shown",
        "1 – 6": "load, use, routers, stream, card, losses and samples",
        "tab": "the next view; at 130 × 32 characters and more all are shown",
        "q": "quit; the run goes on",
        "": "Looks into routing are there if the run has train.watch_every. Load counts all steps.",
    }

    def __init__(self, run: RunDirectory, trains: Callable[[], bool]) -> None:
        super().__init__()
        self._run, self._trains = run, trains
        self._reader, self._series = LogReader(run.events), Series(run.name, path=run.events)
        self._looks: Thinned[RoutingWatched] = Thinned(_LOOKS)
        self._held, self._running, self._read_at, self._events = False, False, -math.inf, 0
        self.at: int | None = None
        self.layer = self.expert = 0
        self.chosen = "load"
        self.panes = {
            "load": Pane(lambda width: load_of_run(self._series, width)),
            "use": Pane(lambda width: self._of_look(use_of_look), right=True),
            "routers": Pane(lambda width: self._of_look(routers_of_look)),
            "stream": Pane(lambda width: self._of_look(stream_of_look), right=True),
            "card": Pane(lambda width: self._card(), right=True),
        }

    def state(self) -> Any:
        return (self._events, self.at, self.layer, self.expert, self._held, self._running,
                None if self._series.ended or not self._running else int(time.time()))  # fmt: skip

    def tick(self) -> None:
        if not self._held and time.monotonic() - self._read_at >= _SECONDS:
            self._read_at = time.monotonic()
            for event in self._reader.read():
                self._series.update(event)
                if isinstance(event, RoutingWatched):
                    self._looks.append(event)
                self._events += 1
            self._running = self._trains()
        super().tick()

    @property
    def look(self) -> RoutingWatched | None:
        """The look that panels show; those that a resumption took back are none."""
        latest = self._series.step[-1] if len(self._series.step) else 0
        self._looks.keep(lambda look: look.step <= latest)
        if not len(self._looks):
            return None
        place = len(self._looks) - 1 if self.at is None else min(self.at, len(self._looks) - 1)
        return self._looks[place]

    def _of_look(self, draw: Callable[[Series, RoutingWatched], RenderableType]) -> RenderableType:
        look = self.look
        if look is None:
            return Text("No look into routing yet: they come with train.watch_every=20, say.")
        return draw(self._series, look)

    def _card(self) -> RenderableType:
        def draw(series: Series, look: RoutingWatched) -> RenderableType:
            routed = [each for each in look.layers if each.experts]
            if not routed:
                return Text("No layer has experts.")
            layer = routed[self.layer % len(routed)]
            return card_of_look(series, layer, self.expert % len(layer.experts))

        return self._of_look(draw)

    def head(self) -> Text:
        series, start, last = self._series, self._series.start, self._series[Steps].last
        line = Text(f"{printable(series.name, '')} ", no_wrap=True, overflow="ellipsis")
        if series.ended:
            line.append(f"{series.ended.status}")
        else:
            line.append("trains" if self._running else "stopped without a word, or elsewhere")
        if self._held:
            line.append(" (held)")
        if last and start:
            line.append(f"  step {last.step:,}/{start.steps:,}  loss {loss(last.loss)}  ")
            line.append(f"{count(last.tokens_per_second)} tokens/s  {size(last.memory_bytes)}",
                        "not bold")  # fmt: skip
            left = series[Pace].seconds_left
            if left is not None and not series.ended:
                line.append(f"  {clock(max(1, left))} left", "not bold")
        return line

    def text(self, width: int, height: int) -> RenderableType:
        series = self._series
        known = [math.log(max(value, 1e-9)) for value in series.smoothed.tolist()
                 if math.isfinite(value)]  # fmt: skip
        lines = [
            Text(f"loss, logarithmic {spark(known, max(width - 20, 8))}"),
            self._validation(width),
        ]
        if shared := processes(series):
            lines.append(Text.assemble("processes: ", shared))
        for sentence in series.complaints[:2]:
            sentence = sentence.replace(str(self._run.events), self._run.events.name)
            lines.append(Text(printable(sentence, ""), "bold red"))
        for notice in series.warnings[-2:]:
            lines.append(Text(printable(notice.message, ""), "yellow"))
        if sample := series[Samples].last:
            lines.append(Text(f"sample at step {sample.step:,}:", "dim"))
            body = Text(printable(sample.prompt), "italic")
            body.append(printable(sample.text.removeprefix(sample.prompt)[:4000]), "not italic")
            lines += [line for line in body.split("\n", allow_blank=True) if line.plain.strip()]
        for line in lines:
            line.truncate(width, overflow="ellipsis")
        return Text("\n").join(lines[:height])

    def _validation(self, width: int) -> Text:
        found = self._series.validation[-max(1, width // 22) :]
        told = "  ".join(f"{each.step:,}: {loss(each.loss)}" for each in found)
        best = self._series.best
        line = Text(f"validation {told or '–'}")
        return line.append(f"  best {loss(best.loss)} at {best.step:,}", "bold") if best else line

    def action_pause(self) -> None:
        self._held = not self._held

    def action_step(self, by: int) -> None:
        last = len(self._looks) - 1
        place = (last if self.at is None else self.at) + by
        self.at = max(place, 0) if place < last else None

    def action_jump(self, last: int) -> None:
        self.at = None if last else 0

    def action_layer(self, by: int) -> None:
        self.layer += by

    def action_expert(self, by: int) -> None:
        self.expert += by
