"""Attention of single queries over what a sparse pattern shows them of a full cache."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba.np.numpy_support import carray

from coterie.generate.native.compile import Kernel
from coterie.generate.native.kernels.attend import BLOCK, attend_block
from coterie.generate.native.kernels.heads import (
    KEY_HEAD,
    KEY_ROW,
    KEYS,
    VALUE_HEAD,
    VALUE_ROW,
    VALUES,
)
from coterie.generate.native.kernels.mask import run_at, runs_of
from coterie.generate.native.machine import fields_at, floats_at, number_at, word_at, words_at


class Sparse(NamedTuple):
    """out = softmax(scale · q·kᵀ)·v over the positions of a mask; a task is one head of one entry.

    `scale` is the operation's number; `scratch` has room for one block for each thread.
    """

    positions: int
    rows: int
    cache: int
    query: int
    query_stride: int
    out: int
    out_stride: int
    heads: int
    key_heads: int
    channels: int
    mask: int
    scratch: int
    scratch_stride: int


def _sparse(op, numbers, head, entry, thread):
    """Let one head of one entry read what it sees of its past."""
    op, scale = fields_at(op), number_at(numbers, 0)
    position, row = word_at(op[0], entry), word_at(op[1], entry)
    cache, channels, weights = carray(words_at(op[2]), 6), op[9], op[11] + 4 * thread * op[12]
    key_head = head // (op[7] // op[8])
    keys = cache[KEYS] + 4 * (row * cache[KEY_ROW] + key_head * cache[KEY_HEAD])
    values = cache[VALUES] + 4 * (row * cache[VALUE_ROW] + key_head * cache[VALUE_HEAD])
    query = op[3] + 4 * (entry * op[4] + head * channels)
    out = op[5] + 4 * (entry * op[6] + head * channels)
    o = carray(floats_at(out), channels)
    for i in range(channels):
        o[i] = np.float32(0)
    highest, total = np.float32(-1e30), np.float32(0)
    for run in range(runs_of(op[10])):
        start, stop, step = run_at(op[10], run, position)
        while start < stop:
            number, at = min(BLOCK, (stop - start + step - 1) // step), 4 * start * channels
            highest, total = attend_block(
                query, keys + at, values + at, number, step, channels, scale, weights, out,
                highest, total,
            )  # fmt: skip
            start += number * step
    for i in range(channels):
        o[i] /= total


SPARSE = Kernel(_sparse)
