"""Sparse patterns: which earlier positions a token sees, a closed union.

Each is causal and says nothing of the text's length, so that a text read piece by piece is seen as
one read at once.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Int
from pydantic import Field
from torch import Tensor

from coterie.foundation.settings import Settings, union


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


class StridedPattern(SparsePattern):
    """Strided attention: a run of the latest positions, and every l-th position before.

    Child et al. 2019, arXiv:1904.10509, section 4.2: position i sees j where i − j < l or where l
    divides i − j. With l near the root of the text's length, any position is reached in two layers.
    """

    kind: Literal["strided"] = "strided"
    stride: int = Field(default=32, ge=1, description="length of the run and of the strides, l")

    def allows(self, query: Tensor, key: Tensor) -> Tensor:
        distance = query - key
        return (distance < self.stride) | (distance % self.stride == 0)

    def seen(self, at: Int[Tensor, " T"], latest: Int[Tensor, " T"]) -> Int[Tensor, " T"]:
        """Return how many of the latest positions are seen: the run, and the strides beyond."""
        strides = ((latest - 1) // self.stride).clamp(min=0)
        return latest.clamp(max=self.stride) + strides


class DilatedPattern(SparsePattern):
    """Dilated attention: only positions whose distance is a multiple of the stride.

    The dilated windows of Beltagy et al. 2020, arXiv:2004.05150 (Longformer); Ding et al. 2023,
    arXiv:2307.02486 (LongNet) mix such strides. With a window of w it sees w / stride positions, so
    a layer reaches stride times as far for the same work; other layers must tell the classes apart.
    """

    kind: Literal["dilated"] = "dilated"
    stride: int = Field(default=4, ge=1, description="distances seen are multiples of it")

    def allows(self, query: Tensor, key: Tensor) -> Tensor:
        return (query - key) % self.stride == 0

    def seen(self, at: Int[Tensor, " T"], latest: Int[Tensor, " T"]) -> Int[Tensor, " T"]:
        return (latest + self.stride - 1) // self.stride


class BlockPattern(SparsePattern):
    """Block-sparse attention: a block sees its neighbours, the first blocks and a few drawn ones.

    Zaheer et al. 2020, arXiv:2007.14062 (BigBird), made causal. Block n of `size` positions sees
    itself (up to each position), the `local` blocks before it, the `first` blocks of the text, and
    `chosen` of the others before it. These are drawn from (seed, n) alone: the blocks between are
    cut into `chosen` runs of nearly equal length and one block of each is taken, so the draw has no
    repetitions, reaches near and far alike and does not depend on how long the text becomes.
    """

    kind: Literal["blocks"] = "blocks"
    size: int = Field(default=64, ge=1, description="positions of a block")
    local: int = Field(default=1, ge=0, description="blocks seen directly before the own one")
    first: int = Field(default=1, ge=0, description="blocks of the text's beginning seen by all")
    chosen: int = Field(default=2, ge=0, description="further earlier blocks seen, drawn by chance")
    seed: int = Field(default=0, ge=0, lt=1 << 31, description="decides which blocks are drawn")
    relative: ClassVar[bool] = False

    def allows(self, query: Tensor, key: Tensor) -> Tensor:
        own, other = query // self.size, key // self.size
        allowed = (own - other <= self.local) | (other < self.first)
        for block, exists in self._drawn(own):
            allowed = allowed | (exists & (other == block))
        return allowed

    def seen(self, at: Int[Tensor, " T"], latest: Int[Tensor, " T"]) -> Int[Tensor, " T"]:
        low, own = at + 1 - latest, at // self.size

        def inside(start: Tensor | int, stop: Tensor) -> Tensor:
            return (torch.minimum(stop, at + 1) - low.clamp(min=start)).clamp(min=0)

        near = (own - self.local).clamp(min=0) * self.size
        opening = torch.full_like(at, self.first * self.size)
        found = inside(near, at + 1) + inside(0, torch.minimum(opening, near))
        for block, exists in self._drawn(own):
            found = found + inside(block * self.size, (block + 1) * self.size) * exists
        return found

    def ranges(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Return the blocks that any of the positions sees, as ranges of positions."""
        begin, end = start // self.size, (stop - 1) // self.size
        found = {*range(min(self.first, end + 1)), *range(max(begin - self.local, 0), end + 1)}
        for own in range(begin, end + 1):
            found.update(self._drawn_by(own))
        return [(block * self.size, min((block + 1) * self.size, stop)) for block in found]

    def tile(self, about: int) -> int:
        """Return a block, or as many as make half of what is asked for."""
        return self.size * max(about // 2 // self.size, 1)

    def _drawn(self, own: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return, of each run, the drawn block for each of the blocks `own`, if it has any."""
        between = (own - self.local - self.first).clamp(min=0)
        found = []
        for run in range(self.chosen):
            low, high = run * between // self.chosen, (run + 1) * between // self.chosen
            offset = _mixed(own, run, self.seed) % (high - low).clamp(min=1)
            found.append((self.first + low + offset, high > low))
        return found

    def _drawn_by(self, own: int) -> list[int]:
        drawn = self._drawn(torch.tensor(own))
        return [int(block) for block, exists in drawn if exists]


def _mixed(number: Tensor, run: int, seed: int) -> Tensor:
    """Return 31 pseudo-random bits of each number; every product stays below 2⁶²."""
    mask = (1 << 31) - 1
    mixed = (number * 0x2C1B3C6D + run * 0x297A2D39 + seed) & mask
    for factor in (0x45D9F3B, 0x45D9F3B, 0x2C1B3C6D):
        mixed = ((mixed ^ (mixed >> 15)) * factor) & mask
    return mixed ^ (mixed >> 16)


Sparse = Annotated[
    StridedPattern | DilatedPattern | BlockPattern,
    union(StridedPattern, DilatedPattern, BlockPattern),
]
