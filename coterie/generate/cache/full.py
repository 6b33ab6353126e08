"""No cache, the yardstick of the others; and the full one, which keeps every position.

Its room doubles whenever it is used up.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from coterie.foundation.settings import Settings
from coterie.generate.cache.buffer import Buffer
from coterie.generate.cache.stack import CacheStack, LayerCache
from coterie.generate.cache.summaries import SummaryLayerCache
from coterie.model import CacheSpec
from coterie.model.cache import NewKeys, NewValues, Seen
from coterie.model.geometry import KeyLayout, UnevenRows


class NoCacheSettings(Settings):
    """Keep nothing; each token costs as much as reading the whole text so far."""

    kind: Literal["none"] = "none"

    def build(self, specs: Sequence[CacheSpec], rollback: int = 0) -> None:
        """Make nothing: the engine reads the text from its start at every step."""


class FullCacheSettings(Settings):
    """Keep every position: exact for every model, memory grows with the text.

    A layer that replaces finished positions by summaries specs those, and what it still needs.
    """

    kind: Literal["full"] = "full"
    room: int = Field(default=256, ge=1, description="positions to make room for at first; doubles")

    def build(self, specs: Sequence[CacheSpec], rollback: int = 0) -> CacheStack:
        return CacheStack([self._layer(spec, rollback) for spec in specs], rollback)

    def kept(self, spec: CacheSpec, positions: int, size: int) -> int:
        room = self.room
        while room < positions:
            room *= 2
        return room

    def _layer(self, spec: CacheSpec, rollback: int) -> LayerCache:
        if spec.summaries:
            return SummaryLayerCache(spec.run, rollback, spec.summaries)
        return FullLayerCache(self.room)


_FROM_THE_START = KeyLayout()


class FullLayerCache:
    """Keys and values of one layer, all of them."""

    def __init__(self, room: int) -> None:
        self._keys = Buffer(room)
        self._values = Buffer(room)

    def append(self, keys: NewKeys, values: NewValues, rows: UnevenRows | None = None) -> Seen:
        if rows is None:
            return self._keys.append(keys), self._values.append(values), _FROM_THE_START
        all_keys, all_values = self._keys.put(keys, rows), self._values.put(values, rows)
        at = torch.arange(all_keys.shape[2], device=keys.device).expand(len(rows.past), -1)
        return all_keys, all_values, KeyLayout(positions=at)

    def select(self, rows: Int[Tensor, " R"]) -> None:
        self._keys.select(rows)
        self._values.select(rows)

    def join(self, other: Any) -> None:
        self._keys.join(other._keys)
        self._values.join(other._values)

    def truncate(self, lengths: tuple[int, ...]) -> None:
        """Forget each row's positions from `lengths[row]` on; they may be any number."""
        self.advance(max(lengths))

    def memory(self, extra: int) -> tuple[Float[Tensor, "B K R C"], Float[Tensor, "B J R E"]]:
        """Return the memory of all rows, with room for `extra` positions beyond the longest.

        Position p of a row is at slot p; slots beyond its last one are finite. Valid until the next
        call of anything; `advance` makes part of the past what was written.
        """
        return self._keys.room_for(extra), self._values.room_for(extra)

    def advance(self, end: int) -> None:
        self._keys.resize(end)
        self._values.resize(end)

    @property
    def nbytes(self) -> int:
        return self._keys.nbytes + self._values.nbytes
