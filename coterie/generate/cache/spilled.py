"""The spilled cache: every position in a mapped file; memory holds the latest, and what is in use.

While a layer attends, the memory of the layer before is let go, and the disk is asked for that of
the layer after. The system keeps what it has room for, so that nothing is read twice from the disk
on a machine with memory to spare, and nothing grows on one without.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from coterie.foundation.runs import cache_root
from coterie.foundation.settings import Settings
from coterie.generate.cache.full import FullLayerCache
from coterie.generate.cache.mapped import MappedBuffer
from coterie.generate.cache.stack import CacheStack
from coterie.generate.cache.window import smaller
from coterie.model import CacheSpec
from coterie.model.cache import NewKeys, NewValues, Seen
from coterie.model.geometry import UnevenRows


class SpilledCacheSettings(Settings):
    """Keep every position in files: exact, for texts longer than memory holds; on the CPU.

    A layer with a window of its own keeps that in memory, and a layer that replaces positions by
    summaries keeps those.
    """

    kind: Literal["spilled"] = "spilled"
    recent: int = Field(default=256, ge=0, description="latest positions that stay in memory")
    room: int = Field(default=256, ge=1, description="positions to make room for at first; doubles")
    folder: str = Field(default="", description="where files go; empty: the user's cache")

    def build(self, specs: Sequence[CacheSpec], rollback: int = 0) -> CacheStack:
        folder = Path(self.folder).expanduser() if self.folder else cache_root() / "spilled"
        ring: list[SpilledLayerCache] = []
        layers = [
            smaller(spec, rollback) or SpilledLayerCache(self.room, folder, self.recent, ring)
            for spec in specs
        ]
        return CacheStack(layers, rollback)


class SpilledLayerCache(FullLayerCache):
    """Keys and values of one layer, all of them, in two files.

    Args:
        room: positions to make room for at first.
        folder: where the files lie.
        recent: how many of the latest positions stay in memory.
        ring: the spilled layers of the model, in the order in which they are asked; this is added.
    """

    def __init__(
        self, room: int, folder: Path, recent: int, ring: "list[SpilledLayerCache]"
    ) -> None:
        super().__init__(room)
        self._mapped = MappedBuffer(room, folder), MappedBuffer(room, folder)
        self._keys, self._values = self._mapped
        self._recent, self._ring, self._number = recent, ring, len(ring)
        ring.append(self)

    def append(self, keys: NewKeys, values: NewValues, rows: UnevenRows | None = None) -> Seen:
        self._ring[self._number - 1].drop()
        after = self._ring[(self._number + 1) % len(self._ring)]
        if after is not self:
            after.fetch()
        return super().append(keys, values, rows)

    def advance(self, end: int) -> None:
        super().advance(end)
        self.drop()

    def drop(self) -> None:
        """Let go of the memory of older positions."""
        for each in self._mapped:
            each.drop(self._recent)

    def fetch(self) -> None:
        """Ask for older positions to be read."""
        for each in self._mapped:
            each.fetch(self._recent)
