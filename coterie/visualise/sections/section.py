"""What a section of the page is, and the sections that other packages add."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from coterie.visualise.reducers.base import Reducer
from coterie.visualise.series import Series


@dataclass(frozen=True)
class Section:
    """One part of a run's page.

    Args:
        anchor: its id in the page.
        title: its heading, plain text.
        reads: the reducers that it looks at, through which it names the kinds of events it shows.
        html: what it shows of a series, as HTML; empty where there is nothing to show. Text from
            outside must be escaped in it.
    """

    anchor: str
    title: str
    reads: tuple[type[Reducer], ...]
    html: Callable[[Series], str]


_added: dict[str, Section] = {}


def add_section(section: Section) -> None:
    """Show a section on every page that is made from now on, before the record.

    A section of the same anchor that was added before is replaced.
    """
    _added[section.anchor] = section


def added_sections() -> tuple[Section, ...]:
    """Return the sections that other packages added, in that order."""
    return tuple(_added.values())
