"""Live pictures and small tables in a notebook, where no cursor can be moved.

A cell's output is drawn in one place and replaced there; this needs IPython, which every notebook
has, and no widgets.
"""

import importlib
import importlib.util
import io
import time
from collections.abc import Callable, Iterable
from html import escape
from typing import Any

from rich.console import Console, RenderableType

from coterie.visualise.console import SafeConsole

_PRE = (
    '<pre style="white-space:pre;overflow-x:auto;line-height:normal;'
    "font-family:Menlo,'DejaVu Sans Mono',consolas,'Courier New',monospace\">{code}</pre>"
)
_ROW = '<tr><th style="text-align:left">{}</th><td style="text-align:left">{}</td></tr>'


class NotebookCell:
    """A picture in a notebook's output, redrawn in place.

    Args:
        width: columns of the picture.
        every_seconds: least time between two drawings.
    """

    def __init__(
        self, draw: Callable[[], RenderableType], width: int = 100, every_seconds: float = 0.5
    ) -> None:
        self._draw = draw
        self._width = width
        self._every = every_seconds
        self._drawn = 0.0
        self._handle: Any = None

    def start(self) -> None:
        """Draw for the first time."""
        display = importlib.import_module("IPython.display")
        self._handle = display.display(Html(self._html()), display_id=True)
        self._drawn = time.monotonic()

    def tick(self) -> None:
        """Redraw if the last drawing is old enough."""
        if time.monotonic() - self._drawn >= self._every:
            self.stop()

    def stop(self) -> None:
        """Draw the last state, which stays."""
        if self._handle is not None:
            self._handle.update(Html(self._html()))
            self._drawn = time.monotonic()

    def _html(self) -> str:
        return html_of(self._draw(), self._width)


class Html:
    """A piece of HTML that a notebook shows as it is."""

    def __init__(self, html: str) -> None:
        self.html = html

    def _repr_html_(self) -> str:
        return self.html


def in_notebook(console: Console) -> bool:
    """Whether a console writes into a notebook whose outputs can be replaced."""
    return console.is_jupyter and importlib.util.find_spec("IPython") is not None


def html_of(renderable: RenderableType, width: int = 100) -> str:
    """Return a renderable of rich as HTML, colours included, all text escaped."""
    recorder = SafeConsole(
        record=True, file=io.StringIO(), width=width, force_terminal=True, force_jupyter=False,
        color_system="truecolor",
    )  # fmt: skip
    recorder.print(renderable)
    return recorder.export_html(inline_styles=True, code_format=_PRE)


def facts_html(title: str, rows: Iterable[tuple[str, Any]]) -> str:
    """Return names and values as a small table under a title, all of it escaped."""
    body = "".join(_ROW.format(escape(str(name)), escape(str(value))) for name, value in rows)
    return f"<b>{escape(title)}</b><table>{body}</table>"


def table_html(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return a table, all of it escaped."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(value))}</td>" for value in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
