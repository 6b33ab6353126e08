"""From token ids to vectors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba.np.numpy_support import carray

from coterie.generate.native.compile import Kernel
from coterie.generate.native.machine import (
    as_float,
    bytes_at,
    fields_at,
    floats_at,
    halves_at,
    word_at,
    words_at,
)
from coterie.generate.native.quantised import GROUP


class Gather(NamedTuple):
    """out = table[index] (+ what is there already); a task is one entry."""

    indices: int
    index_stride: int
    table: int
    width: int
    out: int
    out_stride: int
    adds: int


class GatherInt8(NamedTuple):
    """out = table[index], whose elements are int8 in groups with a bfloat16 scale each."""

    indices: int
    index_stride: int
    table: int
    width: int
    out: int
    out_stride: int
    scale: int


class Hash(NamedTuple):
    """Rows of n-gram tables, gathered side by side or added up; a task is one entry.

    `history` holds for each entry the ids of the tokens that end with it, oldest first, the id for
    “nothing” where there is none; `orders` the lengths, `mixers` a factor for each.
    """

    history: int
    longest: int
    orders: int
    mixers: int
    number: int
    rows: int
    table: int
    width: int
    out: int
    out_stride: int
    joins: int


_PRIME, _BASE = 2**31 - 1, 1_000_003


def _gather_int8(op, numbers, part, entry, thread):
    op = fields_at(op)
    index = word_at(op[0], entry * op[1])
    width, groups = op[3], (op[3] + GROUP - 1) // GROUP
    row = carray(bytes_at(op[2] + index * width), width)
    scales = carray(halves_at(op[6] + 2 * index * groups), groups)
    out = carray(floats_at(op[4] + 4 * entry * op[5]), width)
    for i in range(width):
        scale = as_float(np.int32(scales[i // GROUP]) << np.int32(16))
        out[i] = np.float32(row[i]) * scale


def _gather(op, numbers, part, entry, thread):
    op = fields_at(op)
    index = word_at(op[0], entry * op[1])
    width = op[3]
    row = carray(floats_at(op[2] + 4 * index * width), width)
    out = carray(floats_at(op[4] + 4 * entry * op[5]), width)
    if op[6]:
        for i in range(width):
            out[i] += row[i]
    else:
        for i in range(width):
            out[i] = row[i]


def _hash(op, numbers, part, entry, thread):
    """Gather the rows of the n-grams that end with one token; `embedding.hashing` defines them."""
    op = fields_at(op)
    longest, number, width = op[1], op[4], op[7]
    history = carray(words_at(op[0] + 8 * entry * longest), longest)
    orders, mixers = carray(words_at(op[2]), number), carray(words_at(op[3]), number)
    residue, power, found = 0, 1, 0
    for back in range(longest):
        residue = (residue + (history[longest - 1 - back] + 1) * power) % _PRIME
        power = power * _BASE % _PRIME
        if found < number and orders[found] == back + 1:
            row = residue * mixers[found] % _PRIME % op[5] + found * op[5]
            source = carray(floats_at(op[6] + 4 * row * width), width)
            shift = found * width if op[10] else 0
            out = carray(floats_at(op[8] + 4 * (entry * op[9] + shift)), width)
            for i in range(width):
                out[i] = source[i] if op[10] else out[i] + source[i]
            found += 1


GATHER, GATHER_INT8, HASH = Kernel(_gather), Kernel(_gather_int8), Kernel(_hash)
