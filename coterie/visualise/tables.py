"""Rows of figures, laid out fast enough to be drawn thirty times a second."""

from dataclasses import dataclass
from typing import Literal

from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.text import Text

_APART = 2  # blanks between columns
_NARROWEST = 6  # characters that a column of words keeps


@dataclass(frozen=True)
class _Column:
    name: str
    right: bool
    width: int
    style: str


class Panel:
    """A table below a heading that may be wider; texts are texts, brackets and all.

    Where it is wider than there is room, the widest columns of words are wrapped. Rich's own table
    would do, but measures and wraps each cell several times.
    """

    def __init__(self, heading: str) -> None:
        self.heading, self.show_header = heading, True
        self._columns: list[_Column] = []
        self._rows: list[list[Text]] = []

    def add_column(
        self, name: str = "", justify: Literal["left", "right"] = "left", width: int = 0,
        style: str = "",
    ) -> None:  # fmt: skip
        """Add a column of that width at least."""
        self._columns.append(_Column(name, justify == "right", width, style))

    def add_row(self, *cells: str | Text) -> None:
        self._rows.append([Text(cell) if isinstance(cell, str) else cell for cell in cells])

    def _widths(self, room: int) -> list[int]:
        names = [column.name if self.show_header else "" for column in self._columns]
        widths = [
            max(column.width, len(name), *(row[at].cell_len for row in self._rows if at < len(row)))
            for at, (column, name) in enumerate(zip(self._columns, names, strict=True))
        ]
        words = [at for at, column in enumerate(self._columns) if not column.right]
        while words and sum(widths) + _APART * (len(widths) - 1) > room:
            widest = max(words, key=widths.__getitem__)
            if widths[widest] <= _NARROWEST:
                break
            widths[widest] -= 1
        return widths

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self.heading, "dim")
        widths = self._widths(options.max_width)
        rows = self._rows
        if self.show_header:
            yield from self._lines(
                console, options, [Text(c.name, "bold") for c in self._columns], widths
            )
            rule = "─" * min(sum(widths) + _APART * (len(widths) - 1), options.max_width)
            yield Segment(rule + "\n")
        for row in rows:
            yield from self._lines(console, options, row, widths)
        yield Segment("\n")

    def _lines(
        self, console: Console, options: ConsoleOptions, row: list[Text], widths: list[int]
    ) -> RenderResult:
        cells = [
            [cell] if cell.cell_len <= width else list(cell.wrap(console, width))
            for cell, width in zip(row, widths, strict=False)
        ]
        for number in range(max(map(len, cells), default=0)):
            line: list[Segment] = []
            for column, cell, width in zip(self._columns, cells, widths, strict=False):
                text = cell[number] if number < len(cell) else Text()
                style = console.get_style(column.style) if column.style else None
                room = " " * (width - text.cell_len)
                shown = [*Segment.apply_style(text.render(console), style)]
                line += [Segment(" " * _APART)] if line else []
                line += [Segment(room), *shown] if column.right else [*shown, Segment(room)]
            yield from Segment.adjust_line_length(line, options.max_width, pad=False)
            yield Segment("\n")
