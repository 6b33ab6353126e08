"""Latent-vector attention of single tokens, and the summaries of chunks that they finish.

`coterie.model.attention.latent_vectors` defines both. Each row has an entry of its own that says
where its running chunk and its summaries lie.
"""

from collections import namedtuple

import numpy as np
from numba.np.numpy_support import carray

from coterie.generate.native.compile import Kernel
from coterie.generate.native.kernels.attend import BLOCK, attend_block
from coterie.generate.native.kernels.heads import keep, rotate
from coterie.generate.native.machine import (
    fields_at,
    floats_at,
    kernel,
    number_at,
    word_at,
    words_at,
)

ROW = 10
FIRST, SUMMARIES, KEYS, KEY_HEAD, VALUES, VALUE_HEAD, FAR, FAR_HEAD, MEANS, MEAN_HEAD = range(ROW)
"""What a row's entry says: the position at slot 0 of the running chunk, how many summaries there
are; then addresses and strides between heads, in elements, of the chunk's keys and values and of
the summaries' keys and values."""


Chunked = namedtuple(
    "Chunked",
    "positions rows cache query query_stride key key_stride value value_stride out out_stride "
    "heads key_heads channels tables turned layout chunk latents number scratch scratch_stride",
)
"""What the operations of a layer know of it.

`cache` is the address of the address of the rows' entries; `scale` is the operation's number.
For each thread `scratch` has room for one block and one vector.
"""


@kernel
def row_at(op, entry):
    return carray(words_at(word_at(op[2], 0) + 8 * ROW * word_at(op[1], entry)), ROW)


@kernel
def begin(out, channels):
    """Begin a running softmax; return its maximum and its sum."""
    o = carray(floats_at(out), channels)
    for i in range(channels):
        o[i] = np.float32(0)
    return np.float32(-1e30), np.float32(0)


@kernel
def extend(query, keys, values, number, channels, scale, weights, out, highest, total):
    """Add any number of positions to a running softmax."""
    for start in range(0, number, BLOCK):
        at, size = 4 * start * channels, min(BLOCK, number - start)
        highest, total = attend_block(
            query, keys + at, values + at, size, 1, channels, scale, weights, out, highest, total
        )
    return highest, total


@kernel
def end(out, channels, total):
    o = carray(floats_at(out), channels)
    for i in range(channels):
        o[i] /= total


def _keep(op, numbers, part, entry, thread):
    """Rotate one entry's queries and keys, and add its keys and values to the running chunk."""
    op = fields_at(op)
    position, row, channels = word_at(op[0], entry), row_at(op, entry), op[13]
    query, key = op[3] + 4 * entry * op[4], op[5] + 4 * entry * op[6]
    if op[14]:
        rotate(query, op[11], channels, op[14], op[15], op[16], position)
        rotate(key, op[12], channels, op[14], op[15], op[16], position)
    slot = position - row[FIRST]
    keep(key, channels, op[12], row[KEYS], row[KEY_HEAD], slot)
    keep(op[7] + 4 * entry * op[8], channels, op[12], row[VALUES], row[VALUE_HEAD], slot)


def _read(op, numbers, head, entry, thread):
    """Let one head of one entry read the summaries and the running chunk up to itself."""
    op, scale = fields_at(op), number_at(numbers, 0)
    row, channels, weights = row_at(op, entry), op[13], op[20] + 4 * thread * op[21]
    key_head = head // (op[11] // op[12])
    query = op[3] + 4 * (entry * op[4] + head * channels)
    out = op[9] + 4 * (entry * op[10] + head * channels)
    highest, total = begin(out, channels)
    far, means = row[FAR] + 4 * key_head * row[FAR_HEAD], row[MEANS] + 4 * key_head * row[MEAN_HEAD]
    highest, total = extend(
        query, far, means, row[SUMMARIES], channels, scale, weights, out, highest, total
    )
    keys = row[KEYS] + 4 * key_head * row[KEY_HEAD]
    values = row[VALUES] + 4 * key_head * row[VALUE_HEAD]
    number = word_at(op[0], entry) - row[FIRST] + 1
    highest, total = extend(
        query, keys, values, number, channels, scale, weights, out, highest, total
    )
    end(out, channels, total)


def _summarise(op, numbers, part, entry, thread):
    """Summarise the running chunk of one entry for one latent, where the entry finishes it."""
    op, scale = fields_at(op), number_at(numbers, 0)
    position, row, channels, chunk = word_at(op[0], entry), row_at(op, entry), op[13], op[17]
    if position - row[FIRST] + 1 != chunk:
        return
    key_head, number = part // op[19], part % op[19]
    weights = op[20] + 4 * thread * op[21]
    query = weights + 4 * BLOCK
    a = carray(floats_at(op[18] + 4 * part * channels), channels)
    b = carray(floats_at(query), channels)
    for i in range(channels):
        b[i] = a[i]
    if op[14]:
        rotate(query, 1, channels, op[14], op[15], op[16], position)
    keys = row[KEYS] + 4 * key_head * row[KEY_HEAD]
    place = row[SUMMARIES] + number
    out = row[FAR] + 4 * (key_head * row[FAR_HEAD] + place * channels)
    highest, total = begin(out, channels)
    highest, total = extend(query, keys, keys, chunk, channels, scale, weights, out, highest, total)
    end(out, channels, total)
    values = row[VALUES] + 4 * key_head * row[VALUE_HEAD]
    out = row[MEANS] + 4 * (key_head * row[MEAN_HEAD] + place * channels)
    highest, total = begin(out, channels)
    highest, total = extend(
        query, keys, values, chunk, channels, scale, weights, out, highest, total
    )
    end(out, channels, total)


KEEP, READ, SUMMARISE = Kernel(_keep), Kernel(_read), Kernel(_summarise)
