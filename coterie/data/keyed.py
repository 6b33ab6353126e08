"""Random numbers and orders that are pure functions of keys: nothing is drawn, nothing remembered.

The permutation is a Feistel network over pairs (Luby & Rackoff 1988) on Z_a × Z_b with modular
addition and a·b just above the number of places; numbers above it walk on along their cycle (Black
& Rogaway 2002). Its rounds mix with the finaliser of SplitMix64 (Steele, Lea & Flood 2014).
"""

from __future__ import annotations

import math

import numpy as np

_ROUNDS = 6
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def permuted(numbers: np.ndarray, count: int, keys: list[np.uint64]) -> np.ndarray:
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
            left = (left + mix(right ^ key) % np.uint64(high)) % np.uint64(high)
        else:
            right = (right + mix(left ^ key) % np.uint64(low)) % np.uint64(low)
    return left * np.uint64(low) + right


def mix(values: np.ndarray) -> np.ndarray:
    """Return SplitMix64's finaliser of each value; arithmetic wraps at 2^64."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def keys_of(seed: int, epoch: int, order: int) -> list[np.uint64]:
    """Return the keys, one per round, of an epoch's numbered order: the same on every machine."""
    state = np.array([seed & _MASK, epoch & _MASK, seed >> 64 & _MASK, order], dtype=np.uint64)
    base = 0
    for part in mix(state + np.uint64(_GOLDEN)).tolist():
        base = int(mix(np.array([(base * 3 + part) & _MASK], dtype=np.uint64))[0])
    steps = np.array(
        [(base + _GOLDEN * (number + 1)) & _MASK for number in range(_ROUNDS)], dtype=np.uint64
    )
    return list(mix(steps))


def hashed(numbers: np.ndarray, keys: list[np.uint64]) -> np.ndarray:
    """Return a keyed hash of each number, uint64 of the same shape."""
    result = numbers.astype(np.uint64)
    for key in keys[:2]:
        result = mix((result ^ key) + np.uint64(_GOLDEN))
    return result
