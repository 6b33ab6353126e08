"""The random numbers of augmentations: none depends on any drawn before it.

Philox (Salmon et al. 2011) is counter-based: rows are places in one stream, found without drawing
what lies before them. To begin such a stream takes longer than a small batch's numbers do, so those
of all augmentations of a batch come from one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from coterie.batch import TokenBatch

_PER_COUNT = 8  # numbers of 32 bits


class Draws:
    """Uniform numbers of one augmentation as a pure function of (seed, step, row, place)."""

    def __init__(self, shared: _Shared, first: int, count: int) -> None:
        self._shared = shared
        self._first, self._count = first, count

    def uniform(
        self, step: int, first_row: int, shape: tuple[int, int], stream: int = 0
    ) -> np.ndarray:
        """Return numbers of at least 0 and below 1, float32 [B, T], which must not be changed.

        Args:
            step: whose batch it is.
            first_row: which row of the whole batch, over all ranks, the first one is.
            shape: B, T.
            stream: tells several draws of one augmentation apart; below its `streams`.
        """
        assert 0 <= stream < self._count, "more draws than the augmentation's `streams`"
        return self._shared.drawn(step, first_row, shape)[self._first + stream]


class _Shared:
    """The numbers of all augmentations of a batch, drawn together and kept until the next one.

    Args:
        seed: the run's.
        owns: the augmentations' own seeds.
        streams: how many draws they make in all.
    """

    def __init__(self, seed: int, owns: Sequence[int], streams: int) -> None:
        self._name = (seed, *owns)
        self._streams = streams
        self._last: tuple[tuple[int, int, tuple[int, int]], np.ndarray] | None = None

    def drawn(self, step: int, first_row: int, shape: tuple[int, int]) -> np.ndarray:
        """Return the numbers of every stream, float32 [streams, B, T]."""
        asked = (step, first_row, shape)
        last = self._last  # another thread may put its own there
        if last is None or last[0] != asked:
            last = self._last = (asked, self._draw(*asked))
        return last[1]

    def _draw(self, step: int, first_row: int, shape: tuple[int, int]) -> np.ndarray:
        rows, width = shape
        name = repr((*self._name, step)).encode()
        key = np.frombuffer(hashlib.blake2b(name, digest_size=16).digest(), np.uint64)
        counts = -(-width // _PER_COUNT)
        source = np.random.Philox(key=key, counter=[first_row * counts * self._streams, 0, 0, 0])
        drawn = source.random_raw(rows * self._streams * counts * 4).view(np.uint32)
        drawn >>= np.uint32(8)
        drawn = drawn.reshape(rows, self._streams, counts * _PER_COUNT)[:, :, :width]
        result = np.multiply(
            drawn.transpose(1, 0, 2),
            np.float32(2.0**-24),
            dtype=np.float32,
            casting="unsafe",
            order="C",
        )
        result.flags.writeable = False
        return result


def draws_of(seed: int, wanted: Sequence[tuple[int, int]]) -> list[Draws]:
    """Return the random numbers of several augmentations, given each one's own seed and streams."""
    counts = [streams for _, streams in wanted]
    shared = _Shared(seed, [own for own, _ in wanted], sum(counts))
    return [Draws(shared, sum(counts[:at]), count) for at, count in enumerate(counts)]


def shape_of(batch: TokenBatch) -> tuple[int, int]:
    """Return B and T of a batch."""
    rows, width = batch.tokens.shape
    return rows, width
