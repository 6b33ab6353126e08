"""The windowed cache: the latest positions only, always contiguous, memory that stops growing.

A query at position p with window w sees p and the w − 1 positions before it, so w − 1 positions are
all that must outlive a call. They sit at the end of the used part of a buffer of twice that size;
when the buffer is full they move to its front. A new token so costs one small write and, averaged,
one copied position, and what attention is handed is a plain slice, never a ring to unroll.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from coterie.foundation.settings import Settings
from coterie.generate.cache.full import FullLayerCache
from coterie.generate.cache.stack import CacheStack, LayerCache
from coterie.model import Keep

_FIRST_ROOM = 256


class WindowCacheSettings(Settings):
    """Keep the latest positions: exact for layers whose own attention window is no larger.

    Without `size`, each layer keeps its own window, and a layer that sees everything keeps
    everything: exact for every model. With `size`, no layer keeps more than that: a layer trained
    to see further then sees less, from the second call on (a prompt read in one piece is still
    seen whole), which bounds the memory and changes the text.
    """

    kind: Literal["window"] = "window"
    size: int | None = Field(
        default=None, ge=1, le=1 << 20, description="the most positions a token sees"
    )

    def build(self, keeps: Sequence[Keep]) -> CacheStack:
        """Make an empty cache for layers with these needs."""
        return CacheStack([self._layer(keep.window) for keep in keeps])

    def _layer(self, window: int | None) -> LayerCache:
        bounds = [bound for bound in (window, self.size) if bound is not None]
        return WindowLayerCache(min(bounds)) if bounds else FullLayerCache(_FIRST_ROOM)


class WindowLayerCache:
    """The latest keys and values of one layer.

    Args:
        window: how many positions a query sees, its own included.
    """

    def __init__(self, window: int) -> None:
        assert window >= 1
        self._keep = window - 1  # the query's own position always arrives with it
        self._room = max(2 * self._keep, 1)
        self._start = self._end = 0  # the kept positions inside the buffers
        self._length = 0  # positions seen so far
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def append(
        self, keys: Float[Tensor, "B K T C"], values: Float[Tensor, "B K T C"]
    ) -> tuple[Float[Tensor, "B K S C"], Float[Tensor, "B K S C"], int]:
        """Add T positions; return them after up to w − 1 earlier ones, and the first's place."""
        new = keys.shape[2]
        if self._keys is None or self._values is None:
            self._keys = _buffer(keys, self._room)
            self._values = _buffer(values, self._room)
        first = self._length - (self._end - self._start)
        self._length += new
        if self._end + new > self._room:
            joined_keys = torch.cat((self._keys[:, :, self._start : self._end], keys), dim=2)
            joined_values = torch.cat((self._values[:, :, self._start : self._end], values), dim=2)
            self._refill(joined_keys, joined_values)
            return joined_keys, joined_values, first
        begin, middle = self._start, self._end
        self._end += new
        self._keys[:, :, middle : self._end] = keys
        self._values[:, :, middle : self._end] = values
        self._start = max(self._end - self._keep, self._start)
        return self._keys[:, :, begin : self._end], self._values[:, :, begin : self._end], first

    def _refill(self, keys: Tensor, values: Tensor) -> None:
        """Begin the buffers anew with the latest positions of these."""
        assert self._keys is not None
        assert self._values is not None
        kept = min(self._keep, keys.shape[2])
        self._keys[:, :, :kept] = keys[:, :, keys.shape[2] - kept :]
        self._values[:, :, :kept] = values[:, :, values.shape[2] - kept :]
        self._start, self._end = 0, kept

    def select(self, rows: Int[Tensor, " R"]) -> None:
        """Keep only these rows of the batch, in this order."""
        if self._keys is not None and self._values is not None:
            self._keys = self._keys.index_select(0, rows)
            self._values = self._values.index_select(0, rows)

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return sum(each.nbytes for each in (self._keys, self._values) if each is not None)


def _buffer(like: Tensor, room: int) -> Tensor:
    batch, heads, _, channels = like.shape
    return like.new_empty(batch, heads, room, channels)
