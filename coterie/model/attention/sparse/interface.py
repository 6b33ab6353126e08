"""What a mask asks of a sparse pattern."""

from typing import ClassVar

from jaxtyping import Int
from torch import Tensor

from coterie.foundation.settings import Settings


class SparsePattern(Settings):
    """A pattern that says which earlier positions a position sees; always its own among them.

    Attributes:
        relative: whether it depends on the distance of two positions alone.
    """

    relative: ClassVar[bool] = True

    def allows(self, query: Tensor, key: Tensor) -> Tensor:
        """Return whether each position `query` sees the position `key` ≤ `query`, elementwise."""
        raise NotImplementedError

    def seen(self, at: Int[Tensor, " T"], latest: Int[Tensor, " T"]) -> Int[Tensor, " T"]:
        """Return how many of its `latest` latest positions each position `at` sees."""
        raise NotImplementedError

    def ranges(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Return ranges that hold all that the positions from `start` up to `stop` see."""
        return [(0, stop)]

    def tile(self, about: int) -> int:
        """Return how many neighbouring queries to take together, near `about`."""
        return about
