"""Chance: one uniform number for each token of a text, and the token it falls on."""

import numpy as np
from jaxtyping import Float

_GAMMA = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_BLOCK = 256
_SMALL = 4096
_BELOW_ONE = 1 - 2.0**-53


def uniform(seed: int, index: int) -> float:
    """Return number `index` of the random stream of a seed, in [0, 1), with 53 random bits.

    It depends on nothing else: not on what was drawn before, nor on other texts. The generator is
    SplitMix64 (Steele, Lea and Flood 2014, “Fast Splittable Pseudorandom Number Generators”),
    begun at a scattered seed, so that neighbouring seeds share nothing.
    """
    return at_key(stream_key(seed), index)


def at_key(key: int, index: int) -> float:
    """Return number `index` of the random stream that begins at a key."""
    return (_mix(key + (index + 1) * _GAMMA) >> 11) * 2.0**-53


def stream_key(seed: int) -> int:
    """Return the 64 bits at which the random stream of a seed begins."""
    return _mix(seed + _GAMMA)


def _mix(value: int) -> int:
    value &= _MASK
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & _MASK
    return value ^ (value >> 31)


def draw(probabilities: Float[np.ndarray, " K"], point: float) -> int:
    """Return the place at the point in [0, 1) of the cumulative distribution.

    Impossible places are never returned. Of a large vocabulary the sums are made block by block,
    and only the block that holds the point is looked into, for a running sum is slow.
    """
    if len(probabilities) <= _SMALL:
        return _find(probabilities, point)[0]
    starts = np.arange(0, len(probabilities), _BLOCK)
    block, within = _find(np.add.reduceat(probabilities, starts, dtype=np.float64), point)
    first = block * _BLOCK
    return first + _find(probabilities[first : first + _BLOCK], within)[0]


def _find(weights: Float[np.ndarray, " n"], point: float) -> tuple[int, float]:
    """Return the place whose stretch of the running sum holds the point, and where in the stretch.

    Both points are shares of the whole, in [0, 1). One beyond the end, which rounding may bring
    about, falls on the last possible place.
    """
    ends = weights.cumsum(dtype=np.float64)
    target = point * float(ends[-1])
    place = int(ends.searchsorted(target, side="right"))
    if place == len(ends):
        place = int(np.flatnonzero(weights)[-1])
    own = float(weights[place])
    return place, min(max((target - float(ends[place]) + own) / own, 0.0), _BELOW_ONE)
