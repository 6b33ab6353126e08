"""Attention of single queries over the positions that a cache holds.

Softmax is accumulated block by block (Milakov & Gimelshein 2018, arXiv:1805.02867), so that a
thread needs room for one block whatever the length of the text.
"""

from collections import namedtuple

import numpy as np
from numba.np.numpy_support import carray

from coterie.generate.native.compile import Kernel
from coterie.generate.native.kernels.heads import (
    CACHE_WORDS,
    KEY_HEAD,
    KEY_ROW,
    KEYS,
    VALUE_HEAD,
    VALUE_ROW,
    VALUES,
    held_of,
    pieces_of,
)
from coterie.generate.native.kernels.mask import run_at, runs_of
from coterie.generate.native.machine import (
    fields_at,
    floats_at,
    kernel,
    number_at,
    word_at,
    words_at,
)
from coterie.generate.native.numerics import dot, exponential

BLOCK = 128
"""Positions read together."""


Attend = namedtuple(
    "Attend",
    "positions rows cache query query_stride out out_stride heads key_heads channels mask "
    "together scratch scratch_stride",
)
"""out = softmax(scale · q·kᵀ)·v; a task is `together` query heads of one entry.

`mask` is where a `Pattern` stands; `scale` is the operation's number; `scratch` has room for a
block for each thread.
"""


@kernel
def attend_block(query, keys, values, number, step, channels, scale, weights, out, highest, total):
    """Add `number` positions, each `step` after the one before, to a running softmax.

    Returns its new maximum and sum.
    """
    w, o = carray(floats_at(weights), number), carray(floats_at(out), channels)
    top = highest
    for s in range(number):
        w[s] = dot(query, keys + 4 * s * step * channels, channels) * scale
        top = max(top, w[s])
    shrink = exponential(highest - top)
    for s in range(number):
        w[s] = exponential(w[s] - top)
    total *= shrink
    for s in range(number):
        total += w[s]
    for i in range(channels):
        o[i] *= shrink
    for s in range(number):
        weight, v = w[s], carray(floats_at(values + 4 * s * step * channels), channels)
        for i in range(channels):
            o[i] += weight * v[i]
    return top, total


def _attend(op, numbers, part, entry, thread):
    """Let some heads of one entry read their past."""
    op, scale = fields_at(op), number_at(numbers, 0)
    position, row = word_at(op[0], entry), word_at(op[1], entry)
    cache, channels, together = carray(words_at(op[2]), CACHE_WORDS), op[9], op[11]
    first_head = part * together
    key_head = first_head // (op[7] // op[8])
    keys = cache[KEYS] + 4 * (row * cache[KEY_ROW] + key_head * cache[KEY_HEAD])
    values = cache[VALUES] + 4 * (row * cache[VALUE_ROW] + key_head * cache[VALUE_HEAD])
    weights = op[12] + 4 * thread * op[13]
    for head in range(first_head, first_head + together):
        query = op[3] + 4 * (entry * op[4] + head * channels)
        out = op[5] + 4 * (entry * op[6] + head * channels)
        o = carray(floats_at(out), channels)
        for i in range(channels):
            o[i] = np.float32(0)
        highest, total = np.float32(-1e30), np.float32(0)
        for part in range(runs_of(op[10]) * pieces_of(cache)):
            start, stop, step = run_at(op[10], part // pieces_of(cache), position)
            piece = part % pieces_of(cache)
            start, stop, shift = held_of(cache, row, piece, position, start, stop, step)
            while start < stop:
                number = min(BLOCK, (stop - start + step - 1) // step)
                at = 4 * (start + shift) * channels
                highest, total = attend_block(
                    query, keys + at, values + at, number, step, channels, scale, weights, out,
                    highest, total,
                )  # fmt: skip
                start += number * step
        for i in range(channels):
            o[i] /= total


ATTEND = Kernel(_attend)
