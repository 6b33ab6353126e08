"""From router logits to the list of experts' work: slots, each with the entries it computes.

A slot is one MLP with work to do in this step; its pairs are entries and how much they count.
Every slot's weights are then read once, however many entries it serves.
"""

from collections import namedtuple

import numpy as np
from numba.np.numpy_support import carray

from coterie.generate.native.compile import Kernel
from coterie.generate.native.machine import (
    fields_at,
    float_at,
    floats_at,
    kernel,
    number_at,
    word_at,
    words_at,
)
from coterie.generate.native.numerics import exponential, sigmoid

SOFTMAX, SIGMOID = range(2)
_EPSILON = np.float32(1e-20)
_NEVER = np.float32(-np.inf)
SLOT = 3
"""Words of a slot: its MLP, its first pair, its number of pairs."""


Route = namedtuple(
    "Route",
    "entries logits logits_stride experts per_token score bias renormalise groups "
    "groups_per_token group_counted always gate gate_stride members scores chosen gates "
    "slot_count slots pairs weights",
)
"""One task for all entries: select experts and list the slots.

`members` says of expert e that its MLPs are numbers members[e] … members[e + 1] − 1. The first
`always` MLPs serve every entry, weighed by the sigmoid of `gate` where that is given. With
`groups` of 0 selection is not limited; `numbers` of the operation: scale, and the mass to
gather or 0.
"""


@kernel
def score(kind, logits, scores, experts):
    if kind == SIGMOID:
        for e in range(experts):
            scores[e] = sigmoid(logits[e])
        return
    top, total = _NEVER, np.float32(0)
    for e in range(experts):
        top = max(top, logits[e])
    for e in range(experts):
        scores[e] = exponential(logits[e] - top)
        total += scores[e]
    for e in range(experts):
        scores[e] /= total


@kernel
def highest(values, start, stop):
    """Return where the highest value stands, the first of equals."""
    best = start
    for i in range(start + 1, stop):
        if values[i] > values[best]:
            best = i
    return best


@kernel
def close_groups(ranked, experts, groups, open_groups, counted):
    """Rule out the experts of all but the best groups; ranked has room for groups behind."""
    size = experts // groups
    for group in range(groups):
        first = highest(ranked, group * size, (group + 1) * size)
        value = ranked[first]
        if counted == 2:
            second = _NEVER
            for e in range(group * size, (group + 1) * size):
                if e != first:
                    second = max(second, ranked[e])
            value += second
        ranked[experts + group] = value
    for _ in range(open_groups):
        ranked[highest(ranked, experts, experts + groups)] = _NEVER
    # Chosen groups were marked; the others keep their value and are closed.
    for group in range(groups):
        if ranked[experts + group] != _NEVER:
            for e in range(group * size, (group + 1) * size):
                ranked[e] = _NEVER


@kernel
def choose(op, numbers, entry):
    """Select the experts of one entry and weigh them; −1 stands for none."""
    experts, per_token = op[3], op[4]
    logits = carray(floats_at(op[1] + 4 * entry * op[2]), experts)
    room = experts + max(op[8], 1)
    scores = carray(floats_at(op[15]), experts)
    ranked = carray(floats_at(op[15] + 4 * experts), room)
    chosen = carray(words_at(op[16] + 8 * entry * per_token), per_token)
    gates = carray(floats_at(op[17] + 4 * entry * per_token), per_token)
    score(op[5], logits, scores, experts)
    whole = np.float32(0)
    for e in range(experts):
        whole += scores[e]
        ranked[e] = scores[e]
    if op[6]:
        bias = carray(floats_at(op[6]), experts)
        for e in range(experts):
            ranked[e] += bias[e]
    if op[8]:
        close_groups(ranked, experts, op[8], op[9], op[10])
    gathered, total, mass = np.float32(0), np.float32(0), number_at(numbers, 1)
    share = _EPSILON + whole if op[5] == SIGMOID else np.float32(1)
    for k in range(per_token):
        chosen[k], gates[k] = -1, np.float32(0)
        if mass > 0 and k > 0 and gathered >= mass:
            continue
        best = highest(ranked, 0, experts)
        ranked[best] = _NEVER
        chosen[k], gates[k] = best, scores[best]
        gathered += scores[best] / share
        total += scores[best]
    factor = number_at(numbers, 0)
    if op[7]:
        factor /= total + _EPSILON
    for k in range(per_token):
        gates[k] *= factor


@kernel
def add_slot(op, slot, mlp, pair):
    place = carray(words_at(op[19] + 8 * SLOT * slot), SLOT)
    place[0], place[1], place[2] = mlp, pair, 0


@kernel
def add_pair(op, slot, pair, entry, weight):
    """Give the latest slot one more entry."""
    carray(words_at(op[19] + 8 * SLOT * slot), SLOT)[2] += 1
    carray(words_at(op[20]), pair + 1)[pair] = entry
    carray(floats_at(op[21]), pair + 1)[pair] = weight


def _route(op, numbers, part, item, thread):
    """Select for all entries, then list the slots: those of every entry, and expert by expert."""
    op = fields_at(op)
    entries, experts, per_token = word_at(op[0], 0), op[3], op[4]
    slot, pair = 0, 0
    for mlp in range(op[11]):
        add_slot(op, slot, mlp, pair)
        for entry in range(entries):
            weight = np.float32(1)
            if op[12]:
                weight = sigmoid(float_at(op[12], entry * op[13]))
            add_pair(op, slot, pair, entry, weight)
            pair += 1
        slot += 1
    for entry in range(entries if experts else 0):
        choose(op, numbers, entry)
    number = entries * per_token
    chosen, gates = carray(words_at(op[16]), number), carray(floats_at(op[17]), number)
    members = carray(words_at(op[14]), experts + 1)
    for e in range(experts):
        for mlp in range(members[e], members[e + 1]):
            begun = False
            for k in range(number):
                if chosen[k] == e:
                    if not begun:
                        add_slot(op, slot, mlp, pair)
                        begun = True
                    add_pair(op, slot, pair, k // per_token, gates[k])
                    pair += 1
            slot += begun
    carray(words_at(op[18]), 1)[0] = slot


ROUTE = Kernel(_route)
