"""Queries and keys of heads on their way into attention: normalised, rotated, kept."""

from collections import namedtuple

from numba.np.numpy_support import carray

from coterie.generate.native.compile import Kernel
from coterie.generate.native.kernels.vectors import normalise_vector
from coterie.generate.native.machine import (
    fields_at,
    floats_at,
    kernel,
    number_at,
    word_at,
    words_at,
)

HALF, INTERLEAVED = range(2)
CACHE_WORDS = 16
KEYS, KEY_ROW, KEY_HEAD, VALUES, VALUE_ROW, VALUE_HEAD, RUNS, RUN_ROW, BOUND = range(9)
"""What a layer's entry in the table of caches says: addresses, and strides in elements.

RUNS is the address of the runs of positions of all rows, RUN_ROW how many each has; 0: position p
is at slot p. A run is three words: its first position, the one after its last, and how many slots
further than its number a position lies. A query sees at most BOUND positions, if that is not 0.
"""


Heads = namedtuple(
    "Heads",
    "positions rows cache query query_stride key key_stride value value_stride heads key_heads "
    "channels norm norm_width query_gain query_bias key_gain key_bias tables rotated layout",
)
"""Queries normalised and rotated in place, keys likewise and then kept beside the values.

A task is one entry. `query_norm` and `key_norm` are of one head, or of all as one vector;
`epsilon` is the operation's number. `tables` are addresses of cosines and sines [P, C / 2].
"""


@kernel
def rotate(vector, heads, channels, tables, rotated, layout, position):
    """Turn the first channels of each head by the position's angles."""
    pairs = rotated // 2
    cosine = carray(floats_at(word_at(tables, 0) + 4 * position * pairs), pairs)
    sine = carray(floats_at(word_at(tables, 1) + 4 * position * pairs), pairs)
    for head in range(heads):
        x = carray(floats_at(vector + 4 * head * channels), rotated)
        for i in range(pairs):
            first = i if layout == HALF else 2 * i
            second = i + pairs if layout == HALF else 2 * i + 1
            a, b = x[first], x[second]
            x[first] = a * cosine[i] - b * sine[i]
            x[second] = b * cosine[i] + a * sine[i]


@kernel
def normalise_heads(op, epsilon, vector, heads, gain, bias):
    """Normalise each head, or all heads as one vector."""
    channels, width = op[11], op[13]
    if width != channels:
        width = heads * channels
    for start in range(0, heads * channels, width):
        at = vector + 4 * start
        normalise_vector(op[12], gain, bias, epsilon, at, at, width)


@kernel
def pieces_of(cache):
    """Return how many runs each row has in the cache."""
    return cache[RUN_ROW] if cache[RUNS] else 1


@kernel
def held_of(cache, row, piece, position, start, stop, step):
    """Return which of the positions start, start + step, … before stop lie in a run of the cache.

    That is where they start and stop there, and how many slots further they lie.
    """
    if not cache[RUNS]:
        return start, stop, 0
    run = carray(words_at(cache[RUNS] + 24 * (row * cache[RUN_ROW] + piece)), 3)
    first = run[0]
    if cache[BOUND]:
        first = max(first, position - cache[BOUND] + 1)
    if start < first:
        start += (first - start + step - 1) // step * step
    return start, min(stop, run[1]), run[2]


@kernel
def slot_of(cache, row, position):
    """Return the slot of one of the latest positions."""
    count = cache[RUN_ROW]
    if not cache[RUNS]:
        return position
    runs = carray(words_at(cache[RUNS] + 24 * row * count), 3 * count)
    run = count - 1
    while run > 0 and not runs[3 * run] <= position < runs[3 * run + 1]:
        run -= 1
    return position + runs[3 * run + 2]


@kernel
def keep(source, channels, heads, target, head_stride, slot):
    """Write what each head has of one position where the cache keeps it."""
    for head in range(heads):
        a = carray(floats_at(source + 4 * head * channels), channels)
        b = carray(floats_at(target + 4 * (head * head_stride + slot * channels)), channels)
        for i in range(channels):
            b[i] = a[i]


def _prepare(op, numbers, part, entry, thread):
    """Prepare one entry's queries; prepare and keep its keys and values."""
    op, epsilon = fields_at(op), number_at(numbers, 0)
    position, row = word_at(op[0], entry), word_at(op[1], entry)
    cache, channels, key_heads = carray(words_at(op[2]), CACHE_WORDS), op[11], op[10]
    query, key = op[3] + 4 * entry * op[4], op[5] + 4 * entry * op[6]
    if op[12]:
        normalise_heads(op, epsilon, query, op[9], op[14], op[15])
        normalise_heads(op, epsilon, key, key_heads, op[16], op[17])
    if op[18]:
        rotate(query, op[9], channels, op[18], op[19], op[20], position)
        rotate(key, key_heads, channels, op[18], op[19], op[20], position)
    target, slot = cache[KEYS] + 4 * row * cache[KEY_ROW], slot_of(cache, row, position)
    keep(key, channels, key_heads, target, cache[KEY_HEAD], slot)
    target = cache[VALUES] + 4 * row * cache[VALUE_ROW]
    keep(op[7] + 4 * entry * op[8], channels, key_heads, target, cache[VALUE_HEAD], slot)


HEADS = Kernel(_prepare)
