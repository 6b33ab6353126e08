"""Positions of one tensor, the older ones as codes, the latest and the first as they are."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coterie.generate.cache.codes import Codes, decode_into, encode
from coterie.generate.cache.ragged import appended, joined, padded
from coterie.model.geometry import UnevenRows

_FIRST_BLOCKS = 8


def room_for(blocks: int) -> int:
    """Return for how many blocks there is room once so many have come one by one."""
    room = _FIRST_BLOCKS
    while room < blocks:
        room *= 2
    return room


class MixedBuffer:
    """Keys or values of one layer.

    Args:
        dim: of a group in [..., G, C]: -2, the positions of a channel, or -1, the channels of a
            position.
        group: positions that become codes together.
        sinks: first positions that are kept as they are besides.
    """

    def __init__(self, dim: int, bits: int, group: int, sinks: int) -> None:
        self._dim, self._bits, self._group, self._sinks = dim, bits, group, sinks
        self._latest: Tensor | None = None  # [B, K, R, C], positions that are no codes

    def _begin(self, like: Float[Tensor, "B K T C"]) -> None:
        """Hold nothing, in rows, heads and channels as these."""
        batch, heads, _, channels = like.shape
        self._latest = like[:, :, :0]
        # Of rows that have codes; of others what stands here is not seen.
        self._first = like.new_zeros(batch, heads, self._sinks, channels)
        nothing = like.new_zeros(batch, heads, 0, self._group, channels)
        self._old = encode(nothing, self._dim, self._bits)  # [B, K, blocks, G, C]

    def append(
        self,
        new: Float[Tensor, "B K T C"],
        filled: Sequence[int],
        rows: UnevenRows | None,
        blocks: int,
    ) -> Float[Tensor, "B K S C"]:
        """Add positions to the latest; return all, of which `blocks` groups come from codes."""
        if self._latest is None:
            self._begin(new)
        assert self._latest is not None
        latest = self._latest = appended(self._latest, filled, new, rows)
        if not blocks:
            return latest
        batch, heads, width, channels = latest.shape
        quantised = blocks * self._group
        out = latest.new_empty(batch, heads, quantised + width, channels)
        groups = out[:, :, :quantised].unflatten(2, (blocks, self._group))
        decode_into(groups, self._old.each(lambda held: held[:, :, :blocks]), self._bits)
        out[:, :, : self._sinks] = self._first
        out[:, :, quantised:] = latest
        return out

    def quantise(self, row: int, start: int, count: int) -> None:
        """Make `count` groups of codes from a row's oldest positions, its groups from `start` on.

        They stay among the latest until `forget`.
        """
        assert self._latest is not None
        latest = self._latest[row]
        if start == 0:
            self._first[row] = latest[:, : self._sinks]
        groups = latest[:, : count * self._group].unflatten(1, (count, self._group))
        new = encode(groups, self._dim, self._bits)
        room = self._old.codes.shape[2]
        if room < start + count:
            larger = max(2 * room, start + count, _FIRST_BLOCKS)
            self._old = self._old.each(lambda held: padded(held, larger))
        for held, one in zip(self._old, new, strict=True):
            held[row, :, start : start + count] = one

    def forget(self, counts: Sequence[int], width: int) -> None:
        """Drop so many of each row's oldest unquantised positions; the longest keeps `width`."""
        assert self._latest is not None
        by = torch.tensor(counts, device=self._latest.device)[:, None]
        at = by + torch.arange(width, device=by.device)
        at = at.clamp(max=self._latest.shape[2] - 1)[:, None, :, None]
        shape = (-1, self._latest.shape[1], -1, self._latest.shape[3])
        self._latest = self._latest.gather(2, at.expand(shape))

    def select(self, rows: Int[Tensor, " R"]) -> None:
        if self._latest is not None:
            self._latest = self._latest.index_select(0, rows)
            self._first = self._first.index_select(0, rows)
            self._old = self._old.each(lambda held: held.index_select(0, rows))

    def join(self, other: "MixedBuffer") -> None:
        assert self._latest is not None
        assert other._latest is not None
        self._latest = joined(self._latest, other._latest)
        self._first = joined(self._first, other._first)
        self._old = Codes(*(joined(*pair) for pair in zip(self._old, other._old, strict=True)))

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes, the room for further groups included."""
        if self._latest is None:
            return 0
        return self._latest.nbytes + self._first.nbytes + sum(held.nbytes for held in self._old)
