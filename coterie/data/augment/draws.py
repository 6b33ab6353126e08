"""The random numbers of an augmentation: none depends on any drawn before it.

Philox (Salmon et al. 2011) is counter-based: rows are places in one stream, found without drawing
what lies before them.
"""

from __future__ import annotations

import hashlib

import numpy as np

from coterie.batch import TokenBatch

_PER_COUNT = 8  # numbers of 32 bits


class Draws:
    """Uniform numbers as a pure function of (seed, step, row, place).

    Args:
        seed: the run's.
        number: of the augmentation; each draws for itself.
        own: the augmentation's own seed.
    """

    def __init__(self, seed: int, number: int, own: int = 0) -> None:
        self._key = (seed, number, own)

    def uniform(
        self, step: int, first_row: int, shape: tuple[int, int], stream: int = 0
    ) -> np.ndarray:
        """Return numbers of at least 0 and below 1, float32 [B, T].

        Args:
            step: whose batch it is.
            first_row: which row of the whole batch, over all ranks, the first one is.
            shape: B, T.
            stream: tells several draws of one augmentation apart.
        """
        rows, width = shape
        name = repr((*self._key, step, stream)).encode()
        key = np.frombuffer(hashlib.blake2b(name, digest_size=16).digest(), np.uint64)
        counts = -(-width // _PER_COUNT)
        source = np.random.Philox(key=key, counter=[first_row * counts, 0, 0, 0])
        drawn = source.random_raw(rows * counts * 4).view(np.uint32)
        drawn = drawn.reshape(rows, counts * _PER_COUNT)[:, :width]
        return (drawn >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def shape_of(batch: TokenBatch) -> tuple[int, int]:
    """Return B and T of a batch."""
    rows, width = batch.tokens.shape
    return rows, width
