"""`coterie visualise`: a text while it is written, or again, with a hand in its routing."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, get_args

from rich.console import Group, RenderableType
from rich.text import Text
from textual.binding import Binding, BindingType

from coterie.foundation.errors import UserError
from coterie.foundation.printable import printable
from coterie.visualise.figures import significant, size
from coterie.visualise.live.apart import TextApart
from coterie.visualise.live.app import Pane, ViewApp
from coterie.visualise.live.lines import Ribbon
from coterie.visualise.live.source import LiveText
from coterie.visualise.routing import routed_layers
from coterie.visualise.watching import (
    Colouring,
    attention_panel,
    candidates_panel,
    card_panel,
    heading,
    legend,
    lens_panel,
    load_panel,
    now_panel,
    routers_panel,
)

_PLAYED = 12  # tokens a second of a record that plays


class WritingApp(ViewApp):
    """Shows a text.

    Args:
        layer, experts: chosen first; None: the first layer with experts, its first expert.
        at: the token that is looked at; None: the latest, as it comes.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "pause", "Pause"),
        Binding("left", "step(-1)", "Back"), Binding("right", "step(1)", "On"),
        Binding("pageup", "step(-20)", "Far back"), Binding("pagedown", "step(20)", "Far on"),
        Binding("home", "jump(0)", "First"), Binding("end", "jump(1)", "Last"),
        Binding("up", "layer(-1)", "Layer"), Binding("down", "layer(1)", "Layer"),
        Binding("left_square_bracket,comma", "expert(-1)", "Expert"),
        Binding("right_square_bracket,full_stop", "expert(1)", "Expert"),
        Binding("c", "colour", "Colour"), Binding("m", "hand('mask')", "Mask"),
        Binding("f", "hand('force')", "Force"), Binding("u", "hand('')", "Let go"),
        Binding("r", "record", "Record"), Binding("question_mark,h", "help", "Help"),
        Binding("tab", "next_view(1)", "Next", priority=True),
        Binding("shift+tab", "next_view(-1)", "Before", priority=True),
        Binding("q,ctrl+c", "quit", "Quit", priority=True),
        *(Binding(str(number), f"view('{name}')", name) for number, name in enumerate(
            ("candidates", "experts", "load", "routers", "card", "stream", "attention", "text"), 1
        )),
    ]  # fmt: skip
    KEYS = ("space pause  ←→ step  ↑↓ layer  [ ] expert  m mask  f force  1–8 view  ? help  q quit"
            "  c colour  u let go  r record")  # fmt: skip
    MEANINGS: ClassVar = {
        "space": "pause the writing, or go on; a record plays",
        "← →": "one token back or on; beyond the last, one more is written",
        "page ↑ ↓": "twenty tokens; home and end: the first, the latest",
        "↑ ↓": "the layer that colours the text and the expert is of",
        "[ ]": "the expert whose card is shown (comma and full stop too)",
        "m": "mask the expert, or no longer, and go on from the token looked at",
        "f": "force it on every token, or no longer, and go on from here",
        "u": "let go of all experts and go on from here",
        "c": "colour by expert, surprise or entropy",
        "r": "record to a file what is there and comes, or stop",
        "1 – 8": "candidates, experts, load, routers, card, stream, attention, text",
        "tab": "the next view; at 130 × 32 characters and more all are shown",
        "q": "quit",
        "": "After a hand, tokens are drawn by the same random numbers: what differs, it did. The "
        "formulas stand in the panels’ titles.",
    }

    def __init__(
        self,
        live: LiveText | TextApart,
        *,
        colouring: Colouring = "expert",
        layer: int | None = None,
        experts: Iterable[tuple[int, int]] = (),
        at: int | None = None,
    ) -> None:
        super().__init__()
        self.live, self.at = live, at
        self.colouring: Colouring = colouring
        layers = routed_layers(live.trace)
        first = next(iter(experts), None)
        self.layer = layer if layer is not None else first[0] if first else (layers or [0])[0]
        self.expert = first[1] if first and first[0] == self.layer else 0
        if not layers and colouring == "expert":
            self.colouring = "surprise"
        self.masked, self.forced = (
            {_pair(name) for name in names} for names in (live.header.masked, live.header.forced)
        )
        self._playing = False
        self.chosen = "experts" if layers else "candidates"
        self._ribbon = Ribbon()
        self.panes = {
            "candidates": self._pane(lambda w: candidates_panel(self._trace, self._place)),
            "experts": self._pane(lambda w: now_panel(self._trace, self._place, w)),
            "load": self._pane(lambda w: load_panel(self._trace, w), ("count",), right=True),
            "routers": self._pane(lambda w: routers_panel(self._trace), ("count",)),
            "card": self._pane(lambda w: card_panel(self._trace, self.layer, self.expert),
                               ("count", "layer", "expert")),
            "stream": self._pane(
                lambda w: lens_panel(self._trace, self._place, attention=False), right=True
            ),
            "attention": self._pane(lambda w: attention_panel(self._trace, self._place),
                                    right=True),
        }  # fmt: skip
        if not layers:
            for name in ("experts", "load", "routers", "card"):
                self.panes[name] = Pane(lambda width: Text("No layer has experts."))

    def _pane(
        self, draw: Callable[[int], RenderableType], of: tuple[str, ...] = ("_place",),
        *, right: bool = False,
    ) -> Pane:  # fmt: skip
        """Return a pane that is drawn where the text was begun anew, or one of these changed."""
        return Pane(draw, right, lambda: (id(self._trace.header), *(getattr(self, each)
                                                                    for each in of)))  # fmt: skip

    def on_unmount(self) -> None:
        self.live.close()

    def state(self) -> Any:
        return (self.live.version, self.at, self.layer, self.expert, self.colouring,
                self.live.paused, self.live.recording, self._playing)  # fmt: skip

    def tick(self) -> None:
        self._trace = self.live.trace
        super().tick()

    @property
    def count(self) -> int:
        return len(self._trace.records)

    @property
    def _place(self) -> int:
        """The token that is looked at: of the latest, one that was read."""
        last = self.count - 1
        if last < 0:
            return 0
        return min(self.at, last) if self.at is not None else max(
            last - (not self._trace.records["read"][last]), 0
        )  # fmt: skip

    def draw(self) -> None:
        if self.count and self._trace.records["read"][0]:
            super().draw()
        else:
            self._drawn = None

    def head(self) -> Text:
        live, header = self.live, self.live.header
        doing = "paused" if live.paused and live.writing else "writing" if live.writing else "ended"
        if not live.can_write and not live.writing:
            doing = "playing" if self._playing else "record"
            doing += "" if self._trace.ending else ", cut short"
        line = Text(f"{printable(header.model, '') or 'model'} ", no_wrap=True, overflow="ellipsis")
        line.append(f"step {header.step:,} " if self.wide else "").append(f"{doing} ")
        if live.writing or live.can_write:
            line.append(f"{significant(live.speed)} tokens/s ", "not bold")
            line.append(f"{size(live.memory)} " if self.wide else "", "not bold")
        line.append(" ")
        line.append_text(heading(self._trace, self._place))
        if live.recording:
            line.append(f"  ● {printable(live.recording.name, '')}", "bold red")
        if live.problem:
            line.append(f"  {printable(live.problem, '')}", "bold red")
        return line

    def text(self, width: int, height: int) -> RenderableType:
        title = legend(self._trace, self.colouring, self.layer)
        title.truncate(width, overflow="ellipsis")
        lines = self._ribbon.lines(self._trace, self.colouring, self.layer, self._place, width,
                                   max(height - 1, 1))  # fmt: skip
        return Group(title, lines)

    def action_pause(self) -> None:
        self.message = ""
        if self.live.writing:
            (self.live.go if self.live.paused else self.live.pause)()
            self.at = None if not self.live.paused else self.at
        elif self.count:
            self._playing = not self._playing
            if self._playing:
                self.at = 0 if self.at is None or self.at >= self.count - 1 else self.at
                self._play()

    def _play(self) -> None:
        if not self._playing or self.at is None or self.at >= self.count - 1:
            self._playing = False
            return
        self.at += 1
        self.set_timer(1 / _PLAYED, self._play)

    def action_step(self, by: int) -> None:
        self.message, self._playing = "", False
        if by > 0 and self.at is None and self.live.writing and self.live.paused:
            self.live.step()
            return
        place = self._place + by
        if by < 0 and self.at is None and self.live.writing:
            self.live.pause()
        self.at = max(place, 0) if place < self.count - 1 else None

    def action_jump(self, last: int) -> None:
        self.message, self._playing = "", False
        self.at = None if last else 0

    def action_layer(self, by: int) -> None:
        layers = routed_layers(self._trace)
        if layers:
            self.layer = layers[(layers.index(self.layer) + by) % len(layers)]
            self.expert = min(self.expert, self._experts - 1)

    def action_expert(self, by: int) -> None:
        self.expert = (self.expert + by) % max(self._experts, 1)

    @property
    def _experts(self) -> int:
        return self._trace.header.experts[self.layer] if self._trace.header.experts else 0

    def action_colour(self) -> None:
        ways: tuple[Colouring, ...] = get_args(Colouring)
        self.colouring = ways[(ways.index(self.colouring) + 1) % len(ways)]

    def action_hand(self, kind: str) -> None:
        """Mask or force the expert, or let go of it or of all, and go on from here."""
        own, masked, forced = {(self.layer, self.expert)}, set(self.masked), set(self.forced)
        if kind == "mask":
            masked, forced = masked ^ own, forced - own
        elif kind == "force":
            masked, forced = masked - own, forced ^ own
        else:
            masked, forced = set(), set()
        place = self._place
        try:
            self.live.go_on(place, _by_layer(masked), _by_layer(forced))
        except UserError as error:
            self.message = printable(error.message, "")
            return
        self.masked, self.forced, self.at, self._playing = masked, forced, None, False
        names = [f"{word} {', '.join(f'{layer}:{expert}' for layer, expert in sorted(some))}"
                 for word, some in (("masked", masked), ("forced", forced)) if some]  # fmt: skip
        self.message = f"Goes on from token {place + 1:,}: {'; '.join(names) or 'no hand in it'}."

    def action_record(self) -> None:
        if self.live.recording:
            self.message = f"Recorded: coterie visualise {self.live.recording}"
            self.live.end_record()
            return
        stem = Path(self.live.header.model or "text").name
        names = (Path(f"{stem}-{number}.trace") for number in range(1, 10_000))
        path = next(path for path in names if not path.exists())
        try:
            self.live.record(path)
        except UserError as error:
            self.message = printable(str(error), "")
            return
        self.message = f"Recording to {printable(path, '')}"


def _pair(name: str) -> tuple[int, int]:
    layer, _, expert = name.partition(":")
    return int(layer), int(expert)


def _by_layer(experts: Iterable[tuple[int, int]]) -> dict[int, tuple[int, ...]]:
    found: dict[int, tuple[int, ...]] = {}
    for layer, expert in sorted(experts):
        found[layer] = (*found.get(layer, ()), expert)
    return found
