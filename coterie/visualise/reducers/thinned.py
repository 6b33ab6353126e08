"""Items of a long run, thinned evenly: the first, the last, and every n-th between."""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Thinned(Generic[T]):
    """A list that holds every item up to a limit; beyond it every second, then fourth, and so on.

    The first and the latest item are always in it.
    """

    def __init__(self, limit: int) -> None:
        assert limit >= 2
        assert limit % 2 == 0
        self.limit = limit
        self.count = 0  # of all items there were
        self._items: list[T] = []
        self._every = 1
        self._between = False  # the latest item is there only for being the latest

    def append(self, item: T) -> None:
        if self._between:
            self._items.pop()
        self._items.append(item)
        self.count += 1
        if len(self._items) > self.limit:  # odd, so that the latest stays
            self._items = self._items[::2]
            self._every *= 2
        self._between = (self.count - 1) % self._every != 0

    def keep(self, wanted: Callable[[T], bool]) -> None:
        """Drop all items but those wanted."""
        before = len(self._items)
        self._items = [item for item in self._items if wanted(item)]
        if len(self._items) < before:
            self.count = max(0, (len(self._items) - 1) * self._every + 1) if self._items else 0
            self._between = False

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __getitem__(self, index: int) -> T:
        return self._items[index]
