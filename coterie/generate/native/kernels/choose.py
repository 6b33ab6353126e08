"""From logits to the next token, so that several tokens can follow without a return to Python.

It is what `generate.sampling` does for texts whose choice depends on nothing but the logits and a
number of their random stream; both are held against each other by the tests.
"""

from collections import namedtuple

import numpy as np
from numba.np.numpy_support import carray

from coterie.generate.native.compile import Kernel
from coterie.generate.native.machine import doubles_at, fields_at, floats_at, kernel, words_at
from coterie.generate.native.numerics import exponential
from coterie.generate.native.operations import MOST_ENDS

ON, SIZE, KEY, MADE, WRITTEN, LEFT, TOP_K, BANNED, LEAST, ENDS = range(10)
"""What an entry's record says: whether it goes on, how many tokens it may choose from, the key of
its random stream, tokens drawn from it, tokens written in this call, tokens to write, how many are
kept (0: all), a token never to choose (−1: none), how many tokens it must have before it may end,
how many tokens end it, and then these."""
RECORD = ENDS + 1 + MOST_ENDS
TEMPERATURE, TOP_P, MIN_P = range(3)
"""Its numbers in float64; a temperature of 0 takes the likeliest."""
CHOICES = 3
NO_TOKEN = -1

_BLOCK = 256
_LEAST = np.float32(-87.0)
_NOTHING = np.float32(0)
_BELOW_ALL = np.float32(-np.inf)
_GAMMA, _FIRST, _SECOND = (
    np.uint64(0x9E3779B97F4A7C15),
    np.uint64(0xBF58476D1CE4E5B9),
    np.uint64(0x94D049BB133111EB),
)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)


Choose = namedtuple(
    "Choose",
    "logits logits_stride records choices next_tokens positions past reach tokens logprobs most "
    "weights heap",
)
"""Choose a token of each entry that is on; it is the next to be read. A task is one entry.

`past` has `reach` tokens for each entry, oldest first; 0 where nobody looks at them. `tokens`
and `logprobs` have `most` places for each entry. `weights` and `heap` have room for one row of
logits for each.
"""


@kernel
def mixed(value):
    """Scatter 64 bits (SplitMix64)."""
    value = (value ^ (value >> _S30)) * _FIRST
    value = (value ^ (value >> _S27)) * _SECOND
    return value ^ (value >> _S31)


@kernel
def uniform(key, index):
    """Return number `index` of a random stream, in [0, 1)."""
    return np.float64(mixed(np.uint64(key) + np.uint64(index + 1) * _GAMMA) >> _S11) * 2.0**-53


@kernel
def rule_out(logits, record):
    """Make impossible what must not be chosen now."""
    if record[BANNED] >= 0:
        logits[record[BANNED]] = _BELOW_ALL
    if record[MADE] < record[LEAST]:
        for i in range(record[ENDS]):
            logits[record[ENDS + 1 + i]] = _BELOW_ALL


@kernel
def likeliest(logits, size):
    """Return the first of the largest."""
    best, top = NO_TOKEN, _BELOW_ALL
    for i in range(size):
        if logits[i] > top:
            best, top = i, logits[i]
    return best


@kernel
def weigh(logits, size, top, temperature, weights):
    """Write e^((logit − top) / temperature) of each; return the sum."""
    total, factor = 0.0, np.float32(1 / temperature)
    for i in range(size):
        shifted = (logits[i] - top) * factor
        # What is no number must stay so, for it shows that the model is broken.
        small = _NOTHING if shifted < _LEAST else shifted
        weights[i] = exponential(shifted) if shifted >= _LEAST else small
        total += np.float64(weights[i])
    return total


@kernel
def sink(heap, place, count):
    """Let an item sink to where none below it is smaller."""
    value = heap[place]
    while 2 * place + 1 < count:
        child = 2 * place + 1
        if child + 1 < count and heap[child + 1] < heap[child]:
            child += 1
        if value <= heap[child]:
            break
        heap[place] = heap[child]
        place = child
    heap[place] = value


@kernel
def keep_from(weights, size, least, count):
    """Keep the `count` largest, of which `least` is the smallest; of equals the first."""
    above = 0
    for i in range(size):
        above += weights[i] > least
    equal = count - above
    for i in range(size):
        if weights[i] == least and equal > 0:
            equal -= 1
        elif weights[i] <= least:
            weights[i] = _NOTHING


@kernel
def keep_top_k(weights, size, count, heap):
    """Keep the largest ones: a heap of so many has the smallest of them on top."""
    for i in range(count):
        heap[i] = weights[i]
    for i in range(count // 2 - 1, -1, -1):
        sink(heap, i, count)
    for i in range(count, size):
        if weights[i] > heap[0]:
            heap[0] = weights[i]
            sink(heap, 0, count)
    keep_from(weights, size, heap[0], count)


@kernel
def keep_top_p(weights, size, mass, heap):
    """Keep the fewest largest that hold a share of the whole.

    Below (1 − mass) of an equal share lie none of them, and mostly they lie far above.
    """
    total = summed(weights, 0, size)
    wanted, floor = mass * total, (1 - mass) * total / 64
    count = 0
    while True:
        count, held = 0, 0.0
        for i in range(size):
            if weights[i] > 0 and weights[i] >= floor:
                heap[count] = -weights[i]
                held += np.float64(weights[i])
                count += 1
        if held >= wanted or floor == 0:
            break
        floor = floor / 32 if floor * size > (1 - mass) * total else 0.0
    for i in range(count // 2 - 1, -1, -1):
        sink(heap, i, count)
    taken, least, held = 0, _NOTHING, 0.0
    while count > 0 and (taken == 0 or held < wanted):
        least = -heap[0]
        held += np.float64(least)
        taken += 1
        count -= 1
        heap[0] = heap[count]
        sink(heap, 0, count)
    keep_from(weights, size, least, taken)


@kernel
def summed(weights, start, stop):
    total = 0.0
    for i in range(start, stop):
        total += np.float64(weights[i])
    return total


@kernel
def found(weights, size, point):
    """Return on which of the possible ones the point in [0, 1) of the running sum falls."""
    target, held, at = point * summed(weights, 0, size), 0.0, 0
    while at + _BLOCK < size:
        block = summed(weights, at, at + _BLOCK)
        if held + block > target:
            break
        held += block
        at += _BLOCK
    for i in range(at, size):
        held += np.float64(weights[i])
        if weights[i] > 0 and held > target:
            return i
    for i in range(size - 1, -1, -1):  # rounding may bring the target to the very end
        if weights[i] > 0:
            return i
    return NO_TOKEN


@kernel
def drawn(logits, record, choice, weights, heap):
    """Return the token that falls to one entry, drawn by its settings."""
    size = record[SIZE]
    rule_out(logits, record)
    best = likeliest(logits, size)
    if choice[TEMPERATURE] == 0 or best < 0:
        return best
    weigh(logits, size, logits[best], choice[TEMPERATURE], weights)
    if 0 < record[TOP_K] < size:
        keep_top_k(weights, size, record[TOP_K], heap)
    if choice[TOP_P] < 1:
        keep_top_p(weights, size, choice[TOP_P], heap)
    if choice[MIN_P] > 0:
        least = np.float32(choice[MIN_P])
        for i in range(size):
            weights[i] = weights[i] if weights[i] >= least else _NOTHING
    return found(weights, size, uniform(record[KEY], record[MADE]))


@kernel
def end_here(record, token):
    """Take note of a token that was chosen; end the text if it ends there."""
    record[MADE] += 1
    record[WRITTEN] += 1
    record[LEFT] -= 1
    record[ON] = record[LEFT] > 0 and token != NO_TOKEN
    for i in range(record[ENDS]):
        if record[ENDS + 1 + i] == token:
            record[ON] = 0


def _choose(op, numbers, part, entry, thread):
    op = fields_at(op)
    record = carray(words_at(op[2] + 8 * RECORD * entry), RECORD)
    if not record[ON]:
        return
    size, stride = record[SIZE], op[1]
    logits = carray(floats_at(op[0] + 4 * entry * stride), size)
    choice = carray(doubles_at(op[3] + 8 * CHOICES * entry), CHOICES)
    weights = carray(floats_at(op[11] + 4 * entry * stride), size)
    heap = carray(floats_at(op[12] + 4 * entry * stride), size)
    top = _BELOW_ALL
    for i in range(size):
        top = max(top, logits[i])
    total = weigh(logits, size, top, 1.0, weights)  # of what is not finite it is not either
    token, place = NO_TOKEN, entry * op[10] + record[WRITTEN]
    if total > 0 and total <= size:
        token = drawn(logits, record, choice, weights, heap)
    carray(words_at(op[8]), place + 1)[place] = token
    if token != NO_TOKEN:
        logprob = np.float64(logits[token] - top) - np.log(total)
        carray(doubles_at(op[9]), place + 1)[place] = logprob
        carray(words_at(op[4]), entry + 1)[entry] = token
        carray(words_at(op[5]), entry + 1)[entry] += 1
        reach = op[7]
        past = carray(words_at(op[6] + 8 * entry * reach), reach)
        for i in range(reach - 1):
            past[i] = past[i + 1]
        if reach:
            past[reach - 1] = token
    end_here(record, token)


CHOOSE = Kernel(_choose)
