"""From token ids to vectors."""

from collections import namedtuple

import numpy as np
from numba.np.numpy_support import carray

from coterie.generate.native.compile import Kernel
from coterie.generate.native.machine import (
    as_float,
    bytes_at,
    fields_at,
    floats_at,
    halves_at,
    kernel,
    word_at,
    words_at,
)
from coterie.generate.native.quantised import GROUP

Gather = namedtuple("Gather", "indices index_stride table scale width out out_stride adds")
"""out = table[index] (+ what is there already); a task is one entry.

Where there is a `scale`, elements are int8 in groups with a bfloat16 scale each.
"""


Hash = namedtuple(
    "Hash",
    "history longest orders mixers number rows table scale width out out_stride joins",
)
"""Rows of n-gram tables, gathered side by side or added up; a task is one entry.

`history` holds for each entry the ids of the tokens that end with it, oldest first, the id for
“nothing” where there is none; `orders` the lengths, `mixers` a factor for each.
"""


_PRIME, _BASE = 2**31 - 1, 1_000_003


@kernel
def take_row(table, scale, index, width, out, adds):
    """Write one row of a table, or add it to what is there."""
    target = carray(floats_at(out), width)
    if not adds:
        target[:] = np.float32(0)
    if scale:
        groups = (width + GROUP - 1) // GROUP
        small = carray(bytes_at(table + index * width), width)
        scales = carray(halves_at(scale + 2 * index * groups), groups)
        for i in range(width):
            factor = as_float(np.int32(scales[i // GROUP]) << np.int32(16))
            target[i] += np.float32(small[i]) * factor
    else:
        row = carray(floats_at(table + 4 * index * width), width)
        for i in range(width):
            target[i] += row[i]


def _gather(op, numbers, part, entry, thread):
    op = fields_at(op)
    index = word_at(op[0], entry * op[1])
    take_row(op[2], op[3], index, op[4], op[5] + 4 * entry * op[6], op[7])


def _hash(op, numbers, part, entry, thread):
    """Gather the rows of the n-grams that end with one token; `embedding.hashing` defines them."""
    op = fields_at(op)
    longest, number, width = op[1], op[4], op[8]
    history = carray(words_at(op[0] + 8 * entry * longest), longest)
    orders, mixers = carray(words_at(op[2]), number), carray(words_at(op[3]), number)
    residue, power, found = 0, 1, 0
    for back in range(longest):
        residue = (residue + (history[longest - 1 - back] + 1) * power) % _PRIME
        power = power * _BASE % _PRIME
        if found < number and orders[found] == back + 1:
            row = residue * mixers[found] % _PRIME % op[5] + found * op[5]
            shift = found * width if op[11] else 0
            take_row(op[6], op[7], row, width, op[9] + 4 * (entry * op[10] + shift), not op[11])
            found += 1


GATHER, HASH = Kernel(_gather), Kernel(_hash)
