"""Positions of one tensor, the older ones as codes, the latest and the first as they are."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import BFloat16, Float, Float32, Int, UInt8
from torch import Tensor

from coterie.generate.cache.ragged import appended, joined, padded
from coterie.model.geometry import UnevenRows

SCALE_BYTES = 6
"""What the lowest value and the step of a group take."""
STEP_ROUNDING = 2.0**-7
"""A stored step is larger than the exact one by at most this part of it."""


class Codes(NamedTuple):
    """Numbers of 8 or 4 bits in place of floats: each group gets a lowest value and a step.

    A number x becomes the code (x − low) / step, rounded; `low` is the smallest of its group and
    `step` the range divided by the codes there are. So x comes back wrong by at most half a step,
    whatever other groups hold: an outlier costs its own group and no other.

    With 4 bits the first half of the last dimension lies in the low half of each byte, the second
    half in the high half.
    """

    codes: UInt8[Tensor, "*S"]
    low: Float32[Tensor, "*S"]
    step: BFloat16[Tensor, "*S"]

    def each(self, change: Callable[[Tensor], Tensor]) -> "Codes":
        """Return the same with each tensor changed."""
        return Codes(*map(change, self))


def encode(x: Float[Tensor, "*S"], dim: int, bits: int) -> Codes:
    """Return numbers as codes; those along `dim` are a group.

    Args:
        x: any numbers; a group with one that is not finite comes back as not a number.
        bits: of each code, 8 or 4.
    """
    x = x.float()
    low, high = x.aminmax(dim=dim, keepdim=True)
    levels = (1 << bits) - 1
    # Rounded up, so that no number lies beyond the last code.
    step = ((high - low) * ((1 + STEP_ROUNDING / 2) / levels)).bfloat16()
    step = step.clamp(min=torch.finfo(torch.bfloat16).tiny)
    codes = ((x - low) / step.float()).round_().clamp_(0, levels).nan_to_num_().to(torch.uint8)
    if bits == 4:
        half = (codes.shape[-1] + 1) // 2
        packed = codes[..., :half].clone()
        packed[..., : codes.shape[-1] - half] |= codes[..., half:] << 4
        codes = packed
    return Codes(codes, low, step)


def decode_into(out: Float[Tensor, "*S"], held: Codes, bits: int) -> None:
    """Write the numbers that codes stand for; `out` gives their type and shape."""
    if bits == 4:
        half = held.codes.shape[-1]
        out[..., :half] = held.codes & 15
        out[..., half:] = (held.codes >> 4)[..., : out.shape[-1] - half]
    else:
        out.copy_(held.codes)
    out.mul_(held.step.to(out.dtype)).add_(held.low.to(out.dtype))


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
