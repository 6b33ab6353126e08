"""Latent attention of single tokens in its absorbed form: no keys or values of heads are made.

`coterie.model.attention.mla` defines it. What a full cache holds as keys are latents, as values the
rotated keys.
"""

from collections import namedtuple

import numpy as np
from numba.np.numpy_support import carray

from coterie.generate.native.compile import Kernel
from coterie.generate.native.kernels.attend import BLOCK
from coterie.generate.native.kernels.heads import (
    CACHE_WORDS,
    KEY_ROW,
    KEYS,
    VALUE_HEAD,
    VALUE_ROW,
    VALUES,
    held_of,
    keep,
    pieces_of,
    rotate,
    slot_of,
)
from coterie.generate.native.kernels.mask import run_at, runs_of
from coterie.generate.native.kernels.vectors import normalise_vector
from coterie.generate.native.machine import (
    fields_at,
    floats_at,
    kernel,
    number_at,
    rows_product,
    word_at,
    words_at,
)
from coterie.generate.native.numerics import dot, exponential

Compress = namedtuple(
    "Compress",
    "positions rows cache source source_stride rank keys rotated norm gain bias query "
    "query_stride query_rank query_norm query_gain query_bias tables turned layout",
)
"""Normalises latents and rotates keys, keeps both, and normalises the queries' latents.

A task is one entry. `source` holds a latent of `rank` channels, then `keys` rotary ones of
`rotated`, of which `turned` are rotated; `query` the queries' latent in place, of `query_rank`
(0: there is none). The operation's numbers are the epsilons.
"""


def _compress(op, numbers, part, entry, thread):
    op = fields_at(op)
    position, row = word_at(op[0], entry), word_at(op[1], entry)
    cache, rank = carray(words_at(op[2]), CACHE_WORDS), op[5]
    heads, rotated, slot = op[6], op[7], slot_of(cache, row, position)
    latent = op[3] + 4 * entry * op[4]
    keys = latent + 4 * rank
    if op[8]:
        normalise_vector(op[8], op[9], op[10], number_at(numbers, 0), latent, latent, rank)
    if op[17]:
        rotate(keys, heads, rotated, op[17], op[18], op[19], position)
    keep(latent, rank, 1, cache[KEYS] + 4 * row * cache[KEY_ROW], 0, slot)
    target = cache[VALUES] + 4 * row * cache[VALUE_ROW]
    keep(keys, rotated, heads, target, cache[VALUE_HEAD], slot)
    if op[13] and op[14]:
        query = op[11] + 4 * entry * op[12]
        number = number_at(numbers, 1)
        normalise_vector(op[14], op[15], op[16], number, query, query, op[13])


Absorb = namedtuple(
    "Absorb",
    "positions rows_of cache query query_stride out out_stride together plain rotated value rank "
    "keys weight scale rows sums tables turned layout mask scratch scratch_stride",
)
"""out = Vₕ softmax(scale · (Uₕᵀ q·c + r·k)) c for `together` heads of one entry, a task.

A head's queries are `plain` channels and then `rotated` ones. The matrix holds for each head
`plain` rows of U and `value` of V, of `rank` channels: `rows` multiplies with them, `sums` adds
them up. `keys` are the rotary keys of a position. For each thread and head `scratch` holds a
query as latents see it, a rotated one and a mixture of latents, then the weights of one block;
`scale` is the operation's number.
"""


def scratch_of(together: int, rank: int, rotated: int) -> int:
    """Return how much room a thread needs, in elements."""
    return together * (2 * rank + rotated + 2) + BLOCK


@kernel
def clear(target, number):
    values = carray(floats_at(target), number)
    for i in range(number):
        values[i] = np.float32(0)


@kernel
def lower_query(op, head, entry, own, position):
    """Bring a head's query before the latents, and rotate the rest of it."""
    plain, rotated, rank = op[8], op[9], op[11]
    query = op[3] + 4 * (entry * op[4] + head * (plain + rotated))
    start = head * (plain + op[10])
    clear(own, 2 * rank + rotated)
    rows_product(op[16], op[13], op[14], start, start + plain, query, rank, own)
    a, b = carray(floats_at(query + 4 * plain), rotated), carray(floats_at(own + 4 * rank), rotated)
    for i in range(rotated):
        b[i] = a[i]
    if op[17]:
        rotate(own + 4 * rank, 1, rotated, op[17], op[18], op[19], position)
    state = carray(floats_at(own + 4 * (2 * rank + rotated)), 2)
    state[0], state[1] = np.float32(-1e30), np.float32(0)


@kernel
def read_latents(own, rank, rotated, latents, keys, number, step, scale, weights):
    """Add some positions to a head's running softmax and to its mixture of latents."""
    w, mixed = (
        carray(floats_at(weights), number),
        carray(floats_at(own + 4 * (rank + rotated)), rank),
    )
    state = carray(floats_at(own + 4 * (2 * rank + rotated)), 2)
    top = state[0]
    for s in range(number):
        far = dot(own, latents + 4 * s * step * rank, rank)
        far += dot(own + 4 * rank, keys + 4 * s * step * rotated, rotated)
        w[s] = far * scale
        top = max(top, w[s])
    shrink, total = exponential(state[0] - top), np.float32(0)
    for s in range(number):
        w[s] = exponential(w[s] - top)
    for s in range(number):
        total += w[s]
    state[0], state[1] = top, state[1] * shrink + total
    for i in range(rank):
        mixed[i] *= shrink
    for s in range(number):
        weight, c = w[s], carray(floats_at(latents + 4 * s * step * rank), rank)
        for i in range(rank):
            mixed[i] += weight * c[i]


@kernel
def raise_mixture(op, head, entry, own):
    """Make a head's output of its mixture of latents."""
    plain, rotated, value, rank = op[8], op[9], op[10], op[11]
    place = own + 4 * (rank + rotated)
    mixed, total = carray(floats_at(place), rank), carray(floats_at(place + 4 * rank), 2)[1]
    for i in range(rank):
        mixed[i] /= total
    start = head * (plain + value) + plain
    out = op[5] + 4 * (entry * op[6] + head * value)
    rows_product(op[15], op[13], op[14], start, start + value, place, rank, out)


def _absorb(op, numbers, part, entry, thread):
    """Let some heads of one entry read the latents of their past, each block of them once."""
    op, scale = fields_at(op), number_at(numbers, 0)
    position, row = word_at(op[0], entry), word_at(op[1], entry)
    cache, together = carray(words_at(op[2]), CACHE_WORDS), op[7]
    rotated, rank = op[9], op[11]
    latents = cache[KEYS] + 4 * row * cache[KEY_ROW]
    keys = cache[VALUES] + 4 * row * cache[VALUE_ROW]
    first, size = part * together, 4 * (2 * rank + rotated + 2)
    scratch = op[21] + 4 * thread * op[22]
    weights = scratch + together * size
    for k in range(together):
        lower_query(op, first + k, entry, scratch + k * size, position)
    for piece in range(runs_of(op[20]) * pieces_of(cache)):
        start, stop, step = run_at(op[20], piece // pieces_of(cache), position)
        start, stop, shift = held_of(
            cache, row, piece % pieces_of(cache), position, start, stop, step
        )
        while start < stop:
            number = min(BLOCK, (stop - start + step - 1) // step)
            for k in range(together):
                head = first + k if op[12] > 1 else 0
                own = keys + 4 * (head * cache[VALUE_HEAD] + (start + shift) * rotated)
                read_latents(
                    scratch + k * size, rank, rotated, latents + 4 * (start + shift) * rank, own,
                    number, step, scale, weights,
                )  # fmt: skip
            start += number * step
    for k in range(together):
        raise_mixture(op, first + k, entry, scratch + k * size)


COMPRESS, ABSORB = Kernel(_compress), Kernel(_absorb)
