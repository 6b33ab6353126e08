"""Which windows of the text a training step reads: a pure function of (seed, step, rank, world).

Every start position is usable. An epoch visits each of them once, in `context` laps: a lap begins
at an offset of its own and reads windows that touch but do not overlap, so each lap reads the whole
text about once and no token twice. (Starts drawn freely leave more than a third of the text unread
in the time of one lap.) Keyed permutations give the order of laps and of the windows in them
without storing it. Nothing is remembered from step to step: a resumed run needs its step alone.

The permutation is a Feistel network over pairs (Luby & Rackoff 1988) on Z_a × Z_b with modular
addition and a·b just above the number of places; numbers above it walk on along their cycle (Black
& Rogaway 2002). Its rounds mix with the finaliser of SplitMix64 (Steele, Lea & Flood 2014).
"""

from __future__ import annotations

import math

import numpy as np

from coterie.foundation.errors import DataError

_ROUNDS = 6
_BLOCK = 1 << 12  # places permuted at once: an array costs hardly more than a number
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


class Windows:
    """The starts of training windows of `context` inputs and as many targets, one token later."""

    def __init__(self, num_tokens: int, context: int, seed: int) -> None:
        """Prepare for a row of tokens; one too short for a window is read as a ring.

        Raises:
            DataError: there are no tokens, or the context is not positive.
        """
        if num_tokens < 1:
            raise DataError("There are no tokens to train on.")
        if context < 1:
            raise DataError(f"The context must be at least 1 token, not {context}.")
        self.context = context
        self.seed = seed
        # A window takes context + 1 tokens: the last input's target lies one after it.
        fitting = num_tokens - context
        self.count = fitting if fitting > 0 else num_tokens
        self._laps: tuple[int, np.ndarray, np.ndarray] | None = None
        self._latest: tuple[tuple[int, int, int], np.ndarray] | None = None

    def starts(self, step: int, batch_size: int, rank: int = 0, world: int = 1) -> np.ndarray:
        """Return where the windows of one step begin, int64 [batch_size / world].

        Args:
            step: number of the step, from 0.
            batch_size: windows of the step over all ranks; ranks take consecutive parts of it, so
                their union does not depend on how many there are.
            rank, world: which part of how many.

        Raises:
            DataError: the batch cannot be divided among the ranks.
        """
        if batch_size < 1 or batch_size % world:
            raise DataError(f"A batch of {batch_size} windows cannot be shared by {world} ranks.")
        part = batch_size // world
        first = step * batch_size + rank * part
        epoch, place = divmod(first, self.count)
        parts = []
        while part:
            found = self._run(epoch, place, part)
            parts.append(found)
            part -= len(found)
            place += len(found)
            if place == self.count:
                epoch, place = epoch + 1, 0
        return np.concatenate(parts)

    def _run(self, epoch: int, place: int, most: int) -> np.ndarray:
        """Return the next starts, int64 [1 ... most], from a place in an epoch's order."""
        offsets, ends = self._laps_of(epoch)
        lap = int(np.searchsorted(ends, place, side="right"))
        begin = int(ends[lap - 1]) if lap else 0
        block, inside = divmod(place - begin, _BLOCK)
        order = self._block(epoch, lap, block, int(ends[lap]) - begin)
        return int(offsets[lap]) + self.context * order[inside : inside + most]

    def _laps_of(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return where each lap of an epoch begins in the text and ends in the epoch's order."""
        latest = self._laps  # one look: another thread may replace it
        if latest is None or latest[0] != epoch:
            laps = min(self.context, self.count)
            numbers = np.arange(laps, dtype=np.uint64)
            offsets = _permuted(numbers, laps, _round_keys(self.seed, epoch, 0))
            sizes = -(-(self.count - offsets) // self.context)
            latest = self._laps = (epoch, offsets, np.cumsum(sizes))
        return latest[1], latest[2]

    def _block(self, epoch: int, lap: int, block: int, size: int) -> np.ndarray:
        """Return one block of a lap's order, int64 [n]; the latest is kept to save time."""
        latest = self._latest  # one look: another thread may replace it
        if latest is not None and latest[0] == (epoch, lap, block):
            return latest[1]
        numbers = np.arange(block * _BLOCK, min((block + 1) * _BLOCK, size), dtype=np.uint64)
        order = _permuted(numbers, size, _round_keys(self.seed, epoch, lap + 1))
        self._latest = ((epoch, lap, block), order)
        return order


def _permuted(numbers: np.ndarray, count: int, keys: list[np.uint64]) -> np.ndarray:
    """Return the places, int64 [n], at which a keyed order of `count` has the given numbers."""
    result = _feistel(numbers, count, keys)
    outside = np.flatnonzero(result >= count)
    while len(outside):
        result[outside] = _feistel(result[outside], count, keys)
        outside = outside[result[outside] >= count]
    return result.astype(np.int64)


def _feistel(numbers: np.ndarray, count: int, keys: list[np.uint64]) -> np.ndarray:
    """Permute the numbers below a·b ≥ count, uint64 [n]."""
    high = math.isqrt(count - 1) + 1
    low = -(-count // high)
    left, right = numbers // np.uint64(low), numbers % np.uint64(low)
    for number, key in enumerate(keys):
        if number % 2 == 0:
            left = (left + _mix(right ^ key) % np.uint64(high)) % np.uint64(high)
        else:
            right = (right + _mix(left ^ key) % np.uint64(low)) % np.uint64(low)
    return left * np.uint64(low) + right


def _mix(values: np.ndarray) -> np.ndarray:
    """Return SplitMix64's finaliser of each value; arithmetic wraps at 2^64."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _round_keys(seed: int, epoch: int, order: int) -> list[np.uint64]:
    """Return one key per round of an epoch's numbered order, the same on every machine."""
    state = np.array([seed & _MASK, epoch & _MASK, seed >> 64 & _MASK, order], dtype=np.uint64)
    base = 0
    for part in _mix(state + np.uint64(_GOLDEN)).tolist():
        base = int(_mix(np.array([(base * 3 + part) & _MASK], dtype=np.uint64))[0])
    steps = np.array(
        [(base + _GOLDEN * (number + 1)) & _MASK for number in range(_ROUNDS)], dtype=np.uint64
    )
    return list(_mix(steps))
