"""The full cache: every position kept, in room that doubles whenever it is used up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from coterie.foundation.settings import Settings
from coterie.generate.cache.stack import CacheStack
from coterie.model import Keep


class FullCacheSettings(Settings):
    """Keep every position: exact for every model, memory grows with the text."""

    kind: Literal["full"] = "full"
    room: int = Field(default=256, ge=1, description="positions to make room for at first; doubles")

    def build(self, keeps: Sequence[Keep]) -> CacheStack:
        """Make an empty cache.

        Args:
            keeps: what each attention layer needs.
        """
        return CacheStack([FullLayerCache(self.room) for _ in keeps])


class FullLayerCache:
    """Keys and values of one layer, appended in place; the room grows geometrically.

    Doubling copies each position at most once on average, where joining the new token to the old
    ones at each step would copy all of them every time.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._length = 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def append(
        self, keys: Float[Tensor, "B K T C"], values: Float[Tensor, "B K T C"]
    ) -> tuple[Float[Tensor, "B K S C"], Float[Tensor, "B K S C"], int]:
        """Add T positions; return all positions so far and the place of the first, 0."""
        start, end = self._length, self._length + keys.shape[2]
        self._keys = _with_room(self._keys, keys, start, end, self._room)
        self._values = _with_room(self._values, values, start, end, self._room)
        self._keys[:, :, start:end] = keys
        self._values[:, :, start:end] = values
        self._length = end
        return self._keys[:, :, :end], self._values[:, :, :end], 0

    def select(self, rows: Int[Tensor, " R"]) -> None:
        """Keep only these rows of the batch, in this order."""
        if self._keys is not None and self._values is not None:
            self._keys = self._keys.index_select(0, rows)
            self._values = self._values.index_select(0, rows)

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return sum(each.nbytes for each in (self._keys, self._values) if each is not None)


def _with_room(held: Tensor | None, new: Tensor, used: int, needed: int, room: int) -> Tensor:
    """Return a buffer with room for `needed` positions that begins with the `used` ones held."""
    if held is not None and held.shape[2] >= needed:
        return held
    room = room if held is None else held.shape[2]
    while room < needed:
        room *= 2
    batch, heads, _, channels = new.shape
    larger = new.new_empty(batch, heads, room, channels)
    if held is not None:
        larger[:, :, :used] = held[:, :, :used]
    return larger
