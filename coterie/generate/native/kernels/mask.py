"""Which positions a query sees, as a few runs of positions at equal distances.

`coterie.model.attention.mask` and the patterns beside it define what is seen. Every run is found
from the query's position alone, so that nothing is kept between steps.
"""

from collections import namedtuple

from numba.np.numpy_support import carray

from coterie.generate.native.machine import kernel, words_at

ALL, STRIDED, DILATED, BLOCKS = range(4)


Pattern = namedtuple("Pattern", "runs kind window sinks size local first chosen seed")
"""A mask: a window of 0 is none; `size` is the stride or the positions of a block."""


_WORDS = len(Pattern._fields)
_BITS = (1 << 31) - 1


@kernel
def mixed(number, run, seed):
    """Return 31 pseudo-random bits, as `sparse.blocks` draws them."""
    bits = (number * 0x2C1B3C6D + run * 0x297A2D39 + seed) & _BITS
    bits = ((bits ^ (bits >> 15)) * 0x45D9F3B) & _BITS
    bits = ((bits ^ (bits >> 15)) * 0x45D9F3B) & _BITS
    bits = ((bits ^ (bits >> 15)) * 0x2C1B3C6D) & _BITS
    return bits ^ (bits >> 16)


@kernel
def runs_of(mask):
    """Return how many runs a query sees at most."""
    return carray(words_at(mask), 1)[0]


@kernel
def run_of_blocks(mask, run, position):
    """Return a run of blocks: the latest ones, the first ones, then those drawn."""
    m = carray(words_at(mask), _WORDS)
    size, local, first, chosen = m[4], m[5], m[6], m[7]
    own = position // size
    near = max(own - local, 0)
    if run == 0:
        return near * size, position + 1
    if run == 1:
        return 0, min(first, near) * size
    between = max(own - local - first, 0)
    low = (run - 2) * between // chosen
    high = (run - 1) * between // chosen
    if high <= low:
        return 0, 0
    block = first + low + mixed(own, run - 2, m[8]) % (high - low)
    return block * size, (block + 1) * size


@kernel
def run_at(mask, run, position):
    """Return where a run of what a query sees starts and stops, and its step.

    Runs are disjoint and may be empty; the first holds the sinks.
    """
    m = carray(words_at(mask), _WORDS)
    kind, window, size = m[1], m[2], m[4]
    sinks, end = min(m[3], position + 1), position + 1
    if run == 0:
        return 0, sinks, 1
    low = max(sinks, end - window) if window else sinks
    if kind == BLOCKS:
        start, stop = run_of_blocks(mask, run - 1, position)
        return max(start, low), stop, 1
    if kind == STRIDED and run == 1:
        return max(low, end - size), end, 1
    if kind in (STRIDED, DILATED):
        stop = end - size if kind == STRIDED else end
        return low + (position - low) % size, stop, size
    return low, end, 1
