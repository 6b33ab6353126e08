"""Reading foreign settings: every value checked, every problem collected, nothing guessed.

A value that a family asks for counts as read. Values that change the mathematics and that no part
of the decoder computes are refused by name; other unread values are noted.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

from coterie.exchange.imported import ExchangeError, shown

MOST, MOST_EXPERTS = 1 << 30, 1 << 16  # a file with larger numbers is damaged


class ForeignValues(ABC):
    """The settings in a foreign file, with the problems and notes found so far.

    Attributes:
        refused: names of known changes to the mathematics that the decoder does not compute.
        ignored: names of values on which no logit depends.
    """

    refused: ClassVar[frozenset[str]]
    ignored: ClassVar[frozenset[str]]

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.notes: list[str] = []
        self._read: set[str] = set()

    @abstractmethod
    def raw(self, name: str) -> Any:
        """Return a value unchecked, or its default; None where there is neither."""

    @abstractmethod
    def _given(self) -> Iterator[tuple[str, Any]]:
        """Yield the name and value of everything the file says."""

    @abstractmethod
    def _unread(self, name: str) -> str:
        """Return the note on a value that nobody asked for."""

    def whole(
        self, name: str, default: int | None = None, *, least: int = 1, most: int = MOST
    ) -> int:
        """Return a whole number between two bounds; the default where the file has none."""
        value = self._or_default(name, default)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not least <= value <= most:
            self.wrong(name, value, f"a whole number from {least} to {most:,}")
            return least
        return value

    def count(self, name: str, default: int | None = None, *, least: int = 1) -> int:
        """Return a number of layers or experts."""
        return self.whole(name, default, least=least, most=MOST_EXPERTS)

    def number(self, name: str, default: float | None = None) -> float:
        """Return a number; the default where the file has none."""
        value = self._or_default(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.wrong(name, value, "a number")
            return 1.0
        return float(value)

    def flag(self, name: str) -> bool:
        """Return a truth value; missing and null are false."""
        value = self.raw(name)
        if value is not None and not isinstance(value, bool):
            self.wrong(name, value, "true or false")
        return value is True

    def wrong(self, name: str, value: Any, expected: str) -> None:
        """Report a value that is missing or of another type or size."""
        said = "is missing" if value is None else f"is {shown(value)}"
        self.refuse(f"{name} {said}; it must be {expected}")

    def refuse(self, problem: str) -> None:
        """Add a problem; `finish` reports all of them together."""
        if problem not in self.problems:
            self.problems.append(problem)

    def finish(self, source: object) -> None:
        """Look at the values that nobody asked for, and report all problems.

        Raises:
            ExchangeError: there are any.
        """
        for name, value in self._given():
            if name in self._read or name in self.ignored or not value:
                continue
            if name in self.refused:
                self.refuse(f"{name} is {shown(value)}, which no part of the decoder computes")
            else:
                self.notes.append(self._unread(name))
        if self.problems:
            raise ExchangeError(
                f"{source} describes a model that cannot be expressed here:\n  "
                + "\n  ".join(self.problems)
            )

    def _or_default(self, name: str, default: Any) -> Any:
        value = self.raw(name)
        return default if value is None else value
