"""The random numbers of an augmentation: none depends on any drawn before it."""

from __future__ import annotations

import numpy as np

from coterie.data.keyed import hashed, keys_of

_ORDERS = 1 << 32  # apart from the orders in which packings read
_STREAMS = 1 << 8


class Draws:
    """Uniform numbers as a pure function of (seed, step, row, place).

    Args:
        seed: the run's.
        number: of the augmentation; each draws for itself.
    """

    def __init__(self, seed: int, number: int) -> None:
        self._seed = seed
        self._order = _ORDERS + number * _STREAMS

    def uniform(
        self, step: int, first_row: int, shape: tuple[int, int], stream: int = 0
    ) -> np.ndarray:
        """Return numbers of at least 0 and below 1, float64 [B, T].

        Args:
            step: whose batch it is.
            first_row: which row of the whole batch, over all ranks, the first one is.
            shape: B, T.
            stream: tells several draws of one augmentation apart.
        """
        assert 0 <= stream < _STREAMS
        rows = np.arange(first_row, first_row + shape[0], dtype=np.uint64) << np.uint64(32)
        places = rows[:, None] | np.arange(shape[1], dtype=np.uint64)
        keys = keys_of(self._seed, step, self._order + stream)
        return (hashed(places, keys) >> np.uint64(11)) * 2.0**-53
