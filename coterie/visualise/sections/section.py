"""What a section of the page is, and the sections that other packages add."""

import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from html import escape

from coterie.foundation.errors import UserError
from coterie.foundation.printable import printable
from coterie.visualise.reducers.base import Reducer
from coterie.visualise.series import Series


@dataclass(frozen=True)
class Section:
    """One part of a run's page and, with `line`, of the live display.

    Args:
        anchor: its id in the page.
        title: its heading, plain text.
        reads: the reducers that it looks at, through which it names the kinds of events it shows.
        html: what it shows of a series, as HTML; empty where there is nothing to show. Text from
            outside must be escaped in it.
        line: the same in a few words of plain text, for the terminal.
    """

    anchor: str
    title: str
    reads: tuple[type[Reducer], ...]
    html: Callable[[Series], str]
    line: Callable[[Series], str] | None = None


_added: dict[str, Section] = {}


def add_section(section: Section) -> None:
    """Show a section on every page that is made from now on, before the record.

    A section of the same anchor that was added before is replaced.
    """
    _added[section.anchor] = section


def added_sections() -> tuple[Section, ...]:
    """Return the sections that other packages added, in that order."""
    return tuple(_added.values())


def added_reducers() -> tuple[type[Reducer], ...]:
    """Return the reducers that added sections look at, for a `Series` to keep."""
    return tuple(reducer for section in added_sections() for reducer in section.reads)


def added_html(series: Series) -> Iterator[tuple[str, str, str]]:
    """Yield (anchor, title, HTML) of each added section; one that fails says how."""
    for section in added_sections():
        try:
            html = _shown(section, section.html, series)
        except Exception as error:
            html = f'<p class="note">{escape(_failure(error))}</p>'
        yield section.anchor, section.title, html


def added_lines(series: Series) -> Iterator[tuple[str, str]]:
    """Yield (title, line) of each added section that has something to say in a terminal."""
    for section in added_sections():
        if section.line is None:
            continue
        try:
            line = printable(_shown(section, section.line, series), keep="")
        except Exception as error:
            line = _failure(error)
        if line:
            yield printable(section.title, keep=""), line


def _shown(section: Section, show: Callable[[Series], str], series: Series) -> str:
    for reducer in section.reads:
        if reducer in series.failures:
            raise series.failures[reducer]
    return show(series)


def _failure(error: Exception) -> str:
    return printable(f"This could not be shown: {type(error).__name__}: {error}", keep="")


def import_views(modules: Iterable[str]) -> None:
    """Import modules that declare events and add sections.

    Raises:
        UserError: one cannot be imported.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:  # a foreign module may do anything while it loads
            raise UserError(
                printable(f"{module} cannot be imported: {type(error).__name__}: {error}", keep=""),
                hint="Name modules as Python does, such as my_lab.events; PYTHONPATH says where "
                "they are looked for.",
            ) from error
