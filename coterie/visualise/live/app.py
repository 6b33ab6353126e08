"""What the views of the terminal share: a head, a text, panes in one column or two, keys."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Static

from coterie.visualise.live.lines import Lines

WIDE, TALL = 130, 32  # characters from which all panes are shown at once
FRAMES_PER_SECOND = 30
_SPARED = 2  # times as long as a picture took, at least, until the next is begun


@dataclass(frozen=True)
class Pane:
    """A panel.

    Attributes:
        draw: returns it for a width.
        right: in which column it stands where there are two.
        of: what it is of besides the state of all; where that is what it was, it is not drawn.
    """

    draw: Callable[[int], RenderableType]
    right: bool = False
    of: Callable[[], Any] = time.monotonic


class Help(ModalScreen[None]):
    """The keys, and what the panels say."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,h,q,space,enter", "dismiss(None)", "Back")
    ]
    DEFAULT_CSS = """
    Help { align: center middle; }
    Help > VerticalScroll { width: 78; max-width: 100%; height: auto; max-height: 100%;
        border: round ansi_bright_black; padding: 0 1; }
    Help Static { height: auto; }
    """

    def __init__(self, lines: Mapping[str, str]) -> None:
        super().__init__()
        self._lines = lines

    def compose(self) -> ComposeResult:
        shown = Table.grid(padding=(0, 2, 0, 0))
        shown.add_column(justify="right", style="bold", no_wrap=True)
        for key, meaning in self._lines.items():
            shown.add_row(Text(key), Text(meaning))
        with VerticalScroll():
            yield Static(shown)


class ViewApp(App[None]):
    """A view that is drawn anew where something changed, thirty times a second at most.

    A picture that takes long is followed by a pause as long, so that the view has never more than
    half of a core. It takes the terminal's own colours, dark or light, and with `NO_COLOR` none.
    """

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { background: ansi_default; color: ansi_default; }
    #head, #keys { height: 1; }
    #head { text-style: bold; }
    #keys { color: ansi_bright_black; }
    #text { height: 6; padding: 0 1; }
    #columns { height: 1fr; }
    #columns Lines { padding-right: 1; }
    #columns VerticalScroll { width: 1fr; padding-left: 1; scrollbar-size-vertical: 1;
        scrollbar-color: ansi_bright_black; scrollbar-background: ansi_default; }
    .wide #text { height: 11; }
    .alone #columns { display: none; }
    .alone #text { height: 1fr; }
    """
    MEANINGS: ClassVar[Mapping[str, str]] = {}
    KEYS: ClassVar[str] = ""
    TEXT: ClassVar[str] = "text"
    """The name of the view that is the text alone."""

    def __init__(self) -> None:
        super().__init__(ansi_color=True)
        self.panes: dict[str, Pane] = {}
        self.chosen = ""
        self.message = ""
        self._drawn: Any = None
        self._begun, self._spent = 0.0, 0.0  # when the latest picture was, and its processor time
        self._lines: dict[str, Lines] = {}

    def compose(self) -> ComposeResult:
        self._lines = {name: Lines(name) for name in ("head", "text", *self.panes, "keys")}
        yield self._lines["head"]
        yield self._lines["text"]
        with Horizontal(id="columns"):
            for right in (False, True):
                with VerticalScroll(id="right" if right else "left", can_focus=False):
                    for name, pane in self.panes.items():
                        if pane.right == right:
                            yield self._lines[name]
        yield self._lines["keys"]

    def on_mount(self) -> None:
        self.set_interval(1 / FRAMES_PER_SECOND, self.tick)
        self.tick()

    def state(self) -> Any:
        """Return something that differs whenever the picture would."""
        raise NotImplementedError

    def head(self) -> Text:
        raise NotImplementedError

    def text(self, width: int, height: int) -> RenderableType:
        """Return what stands above the panes, in that much room."""
        raise NotImplementedError

    @property
    def wide(self) -> bool:
        return self.size.width >= WIDE and self.size.height >= TALL

    def tick(self) -> None:
        """Draw, if anything changed."""
        state = (self.state(), self.size, self.chosen, self.message)
        spent = time.thread_time() - self._spent
        if state == self._drawn or time.monotonic() < self._begun + _SPARED * spent:
            return
        if len(self.screen_stack) > 1 or not self._lines["keys"].is_attached:  # help, or the end
            return
        self._drawn = state
        self._begun, self._spent = time.monotonic(), time.thread_time()
        self.draw()

    def draw(self) -> None:
        wide, alone = self.wide, self.chosen == self.TEXT
        self.screen.set_class(wide and not alone, "wide")
        self.screen.set_class(alone, "alone")
        inner = self.size.width - 3
        self._lines["head"].show(self.head(), self.size.width)
        line = Text(self.message or self.KEYS, no_wrap=True, overflow="ellipsis")
        self._lines["keys"].show(line, self.size.width)
        rows = self.size.height - 2 if alone else 11 if wide else 6
        self._lines["text"].show(self.text(inner, rows), inner)
        for side in ("left", "right"):
            _display(self.query_one(f"#{side}"), wide or any(
                name == self.chosen for name, pane in self.panes.items()
                if pane.right == (side == "right")
            ))  # fmt: skip
        if alone:
            return
        width = inner // 2 - 1 if wide else inner
        for name, pane in self.panes.items():
            part, of = self._lines[name], (width, wide, name == self.chosen, pane.of())
            _display(part, wide or name == self.chosen)
            if part.display and part.drawn != of:
                part.drawn = of
                mark = Text(f"{'▸' if name == self.chosen else ' '}{name}", "bold")
                shown = pane.draw(width)
                part.show(Group(mark, shown) if wide else shown, width)

    def action_view(self, name: str) -> None:
        """Show a pane, or where all are shown mark it and bring it into sight."""
        self.chosen, self.message = name, ""
        if name in self.panes and self.wide:
            self.query_one(f"#{name}").scroll_visible()

    def action_next_view(self, by: int) -> None:
        names = [*self.panes, self.TEXT]
        self.action_view(names[(names.index(self.chosen) + by) % len(names)])

    def action_help(self) -> None:
        self.push_screen(Help(self.MEANINGS))


def _display(part: Widget, shown: bool) -> None:
    if part.display != shown:  # to set it asks for a layout
        part.display = shown
