"""The quantised cache: older positions in 8 or 4 bits, the latest ones and the sinks as they are.

Keys have channels that are far larger than the others, values do not (Liu et al. 2024, KIVI,
arXiv:2402.02750; Hooper et al. 2024, KVQuant, arXiv:2401.18079). So keys share a scale per channel,
in groups of neighbouring positions, and values per token. The first positions, to which attention
is drawn whatever they say, may stay as they are.

A group is quantised once, when it has left the recent positions, and never again: errors do not
add up, however long the text. What one call reads it sees itself as it is.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Int
from pydantic import Field, model_validator
from torch import Tensor

from coterie.foundation.settings import Settings
from coterie.generate.cache.mixed import SCALE_BYTES, MixedBuffer, room_for
from coterie.generate.cache.ragged import numbered
from coterie.generate.cache.stack import CacheStack, LayerCache
from coterie.generate.cache.window import kept_of, smaller
from coterie.model import CacheSpec
from coterie.model.cache import NewKeys, NewValues, Seen
from coterie.model.geometry import KeyLayout, UnevenRows

_KEYS, _VALUES = -2, -1  # a group: the positions of a channel, the channels of a position


class QuantisedCacheSettings(Settings):
    """Keep older positions in few bits: a quarter of the memory or less, nearly the same text.

    A layer with a window of its own keeps it as it is, and a layer that replaces positions by
    summaries keeps those.
    """

    kind: Literal["quantised"] = "quantised"
    bits: Literal[8, 4] = Field(default=8, description="of each number: 8 or 4")
    group: int = Field(default=32, ge=2, le=1024, description="positions that share key scales")
    recent: int = Field(default=32, ge=1, le=1 << 20, description="latest positions kept as floats")
    sinks: int = Field(default=4, ge=0, description="first positions kept as floats")

    @model_validator(mode="after")
    def _sinks_fit(self) -> "QuantisedCacheSettings":
        if self.sinks > self.group:
            raise ValueError(f"sinks={self.sinks} must not exceed group={self.group}")
        return self

    def build(self, specs: Sequence[CacheSpec], rollback: int = 0) -> CacheStack:
        """Make an empty cache for layers with these needs.

        At least `rollback` of the latest positions stay as they are, to be taken back.
        """
        recent = max(self.recent, rollback)
        layers = [
            smaller(spec, rollback)
            or QuantisedLayerCache(self.bits, self.group, recent, self.sinks)
            for spec in specs
        ]
        return CacheStack(layers, rollback)

    def kept(self, spec: CacheSpec, positions: int, size: int) -> float:
        """Return for how many positions of a text memory is held, scales included.

        Keys have a scale for every group of positions, values one for every token: they are taken
        to have as many channels as a group has positions.
        """
        small = kept_of(spec, positions)
        if small is not None:
            return float(small)
        whole = min(positions, self.recent + self.group)
        blocks = -(-(positions - whole) // self.group)
        room = room_for(blocks) if blocks else 0
        coded = self.bits / 8 + SCALE_BYTES / self.group
        return whole + self.sinks + room * self.group * coded / size


class QuantisedLayerCache:
    """Keys and values of one layer.

    Args:
        bits: of a code, 8 or 4.
        group: positions that share a scale per channel of the keys.
        recent: how many of the latest positions stay as they are, at least.
        sinks: how many of the first do, at most `group`.
    """

    def __init__(self, bits: int, group: int, recent: int, sinks: int) -> None:
        self._group, self._recent = group, recent
        self._both = tuple(MixedBuffer(dim, bits, group, sinks) for dim in (_KEYS, _VALUES))
        self._blocks: tuple[int, ...] = ()  # of each row, quantised
        self._totals: tuple[int, ...] = ()  # positions of each row

    def append(self, keys: NewKeys, values: NewValues, rows: UnevenRows | None = None) -> Seen:
        """Add T positions and return all so far, the older ones as their codes say."""
        batch, number = keys.shape[0], keys.shape[2]
        if not self._totals:
            self._blocks = self._totals = (0,) * batch
        filled = self._unquantised()
        if rows is None:
            self._totals = tuple(total + number for total in self._totals)
        else:
            self._totals = rows.totals
        old = max(self._blocks)
        held_keys, held_values = (
            half.append(new, filled, rows, old)
            for half, new in zip(self._both, (keys, values), strict=True)
        )
        layout = KeyLayout()
        if rows is not None:
            done = [blocks * self._group for blocks in self._blocks]
            first, width = old * self._group, held_keys.shape[2]
            at = (
                numbered([0] * batch, done, first, keys.device),
                numbered(done, self._unquantised(), width - first, keys.device),
            )
            layout = KeyLayout(positions=torch.cat(at, 1))
        self._quantise()
        return held_keys, held_values, layout

    def _unquantised(self) -> list[int]:
        """Return how many positions of each row are kept as they are."""
        each = zip(self._totals, self._blocks, strict=True)
        return [total - blocks * self._group for total, blocks in each]

    def _quantise(self) -> None:
        """Turn into codes what is no longer recent."""
        new = [max(have - self._recent, 0) // self._group for have in self._unquantised()]
        if not any(new):
            return
        before = self._blocks
        self._blocks = tuple(old + more for old, more in zip(before, new, strict=True))
        width = max(self._unquantised())
        for half in self._both:
            for row, (start, count) in enumerate(zip(before, new, strict=True)):
                if count:
                    half.quantise(row, start, count)
            half.forget([count * self._group for count in new], width)

    def select(self, rows: Int[Tensor, " R"]) -> None:
        chosen = rows.tolist()
        self._blocks = tuple(self._blocks[row] for row in chosen)
        self._totals = tuple(self._totals[row] for row in chosen)
        for half in self._both:
            half.select(rows)

    def join(self, other: LayerCache) -> None:
        assert isinstance(other, QuantisedLayerCache)
        self._blocks += other._blocks
        self._totals += other._totals
        for half, more in zip(self._both, other._both, strict=True):
            half.join(more)

    def truncate(self, lengths: tuple[int, ...]) -> None:
        """Forget each row's positions from `lengths[row]` on.

        Raises:
            ValueError: some of them are codes already.
        """
        for length, blocks in zip(lengths, self._blocks, strict=True):
            if length < blocks * self._group:
                raise ValueError(
                    f"position {length} is quantised, with what came before it: build the cache "
                    "with a larger rollback"
                )
        self._totals = lengths
        width = max(self._unquantised())
        for half in self._both:
            half.forget([0] * len(lengths), width)

    @property
    def nbytes(self) -> int:
        return sum(half.nbytes for half in self._both)
