"""Lines on a screen, of which only those that changed are drawn anew."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region, Size
from textual.strip import Strip
from textual.widget import Widget

from coterie.foundation.traces import Trace
from coterie.visualise.watching import MARK, Colouring, piece


class Lines(Widget):
    """Shows what is laid out once; a layout of the screen is asked for where lines come or go."""

    DEFAULT_CSS = "Lines { height: auto; }"

    def __init__(self, name: str) -> None:
        super().__init__(id=name)
        self._strips: list[Strip] = []
        self.drawn: Any = None
        """What the lines are of; a view that finds the same here has nothing to draw."""

    def show(self, shown: RenderableType, width: int) -> None:
        console = self.app.console
        options = console.options.update(width=width, height=None)
        lines = console.render_lines(shown, options, pad=False)
        old, self._strips = self._strips, [Strip(line) for line in lines]
        if len(old) != len(lines):
            self.refresh(layout=True)
            return
        changed = [Region(0, row, self.size.width, 1)
                   for row, pair in enumerate(zip(old, self._strips, strict=True))
                   if pair[0] != pair[1]]  # fmt: skip
        if changed:
            self.refresh(*changed)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._strips)

    def render_line(self, y: int) -> Strip:
        width, style = self.size.width, self.visual_style.rich_style
        if y >= len(self._strips):
            return Strip.blank(width, style)
        return self._strips[y].apply_style(style).adjust_cell_length(width, style)


class Ribbon:
    """A coloured text in lines, broken at blanks; added tokens change the last line alone."""

    def __init__(self) -> None:
        self._of: Any = None
        self._known = 0  # tokens whose style stays

    def lines(
        self, trace: Trace, colouring: Colouring, layer: int, at: int, width: int, rows: int
    ) -> "Rows":
        """Return the lines around a token, which is marked."""
        of = (trace.header, colouring, layer, width)
        if self._of is None or self._of[0] is not of[0] or self._of[1:] != of[1:]:
            self._of, self._known, self._flat = of, 0, ""
            self._styles, self._owner = list[str](), list[int]()
            self._first, self._starts = list[int](), [0]
        for place in range(self._known, len(trace.texts)):
            text, style = piece(trace, place, colouring, layer)
            if place == len(self._first):
                self._first.append(len(self._flat))
                self._styles.append("")
                self._flat += text.replace("\t", "    ")
                self._owner += [place] * (len(self._flat) - len(self._owner))
            self._styles[place] = style
            if trace.records["read"][place]:  # until then it has no expert
                self._known = place + 1
        self._wrap(width)
        row = bisect_right(self._starts, self._first[at]) - 1
        first = max(min(row - rows // 2, len(self._starts) - rows), 0)
        return Rows([self._row(number, at) for number in
                     range(first, min(first + rows, len(self._starts)))])  # fmt: skip

    def _wrap(self, width: int) -> None:
        """Find where lines start, from the last that is known; a cell stays for a sign."""
        used, blank, flat = 0, -1, self._flat
        at = self._starts[-1]
        while at < len(flat):
            letter = flat[at]
            used += cell_len(letter)
            if letter == "\n" or (used >= width and letter != " "):
                start = at + 1 if letter == "\n" else blank + 1 if blank >= 0 else max(
                    at, self._starts[-1] + 1
                )  # fmt: skip
                self._starts.append(start)
                at, used, blank = start, 0, -1
                continue
            if letter == " ":
                blank = at
            at += 1

    def _row(self, number: int, at: int) -> list[Segment]:
        start = self._starts[number]
        last = number + 1 == len(self._starts)
        stop = len(self._flat) if last else self._starts[number + 1]
        letters = range(start, start + len(self._flat[start:stop].rstrip("\n")))
        line = []
        for style, run in groupby(letters, lambda each: self._style(self._owner[each], at)):
            text = "".join(self._flat[each] for each in run)
            line.append(Segment(text, Style.parse(style)))
        placed = self._first[at]
        shown = self._flat[placed : self._first[at + 1] if at + 1 < len(self._first) else None]
        if not shown.strip("\n") and (start <= placed < stop or (last and placed == stop)):
            # A token without a letter of its own is seen by a sign.
            before = cell_len(self._flat[start:placed])
            left, right = Segment.divide(line, [before, before + len(self._flat) + 1])
            line = [*left, Segment("⏎" if shown else "·", Style.parse(MARK)), *right]
        return line

    def _style(self, place: int, at: int) -> str:
        return MARK if place == at else self._styles[place]


class Rows:
    """Lines as they are."""

    def __init__(self, lines: Iterable[Sequence[Segment]]) -> None:
        self._lines = lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self._lines:
            yield from line
            yield Segment.line()
