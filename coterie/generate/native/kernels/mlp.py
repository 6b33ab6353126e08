"""The MLPs of a layer, dense, shared and routed alike: what their slots have to compute.

Up: hidden = activation(gate·x) ∘ (up·x), or activation(up·x); a middle layer follows in deep MLPs;
down: out = residual + Σ weight · (down·hidden). Each row of a matrix is read once for all entries
of its slot.
"""

from collections import namedtuple

import numpy as np
from numba.np.numpy_support import carray

from coterie.generate.native.compile import Kernel
from coterie.generate.native.kernels.route import SLOT
from coterie.generate.native.kernels.vectors import add
from coterie.generate.native.machine import (
    fields_at,
    floats_at,
    kernel,
    rows_product,
    word_at,
    words_at,
)
from coterie.generate.native.numerics import activated

GATE, UP, MIDDLE, DOWN = 2, 6, 10, 14
"""Where an MLP's record begins to speak of each matrix: its function, weight, scale, bias."""
RECORD = 18
"""Words of a record: hidden channels (0: the MLP returns its input), activation, four matrices."""


Rows = namedtuple(
    "Rows",
    "records slot_count slots pairs weights chunk width source source_stride hidden hidden_stride "
    "middle out out_stride residual residual_stride entries scratch scratch_stride",
)
"""One layer of every slot; a task is `chunk` rows of one slot (of `down`: of all slots)."""


@kernel
def record_at(op, slot):
    """Return a slot's MLP, its first pair and the one after its last."""
    place = carray(words_at(op[2] + 8 * SLOT * slot), SLOT)
    return op[0] + 8 * RECORD * place[0], place[1], place[1] + place[2]


@kernel
def rows_of(matrix, start, stop, x, size, out):
    """Compute some rows of a product and add their biases."""
    rows_product(
        word_at(matrix, 0), word_at(matrix, 1), word_at(matrix, 2), start, stop, x, size, out
    )
    if word_at(matrix, 3):
        add(out, word_at(matrix, 3) + 4 * start, stop - start)


@kernel
def activate(target, number, activation):
    """Replace each of some numbers by its activation."""
    values = carray(floats_at(target), number)
    for i in range(number):
        values[i] = activated(values[i], activation)


def _up(op, numbers, part, slot, thread):
    """Compute some hidden channels of one slot."""
    op = fields_at(op)
    record, first, last = record_at(op, slot)
    hidden, activation = word_at(record, 0), word_at(record, 1)
    start, width, gate = part * op[5], op[6], record + 8 * GATE
    stop = min(start + op[5], hidden)
    number, other = stop - start, op[17] + 4 * thread * op[18]
    for pair in range(first, last if number > 0 else first):
        x = op[7] + 4 * word_at(op[3], pair) * op[8]
        out = op[9] + 4 * (pair * op[10] + start)
        if word_at(gate, 0):
            rows_of(gate, start, stop, x, width, out)
            activate(out, number, activation)
            rows_of(record + 8 * UP, start, stop, x, width, other)
            values, factors = carray(floats_at(out), number), carray(floats_at(other), number)
            for i in range(number):
                values[i] *= factors[i]
        else:
            rows_of(record + 8 * UP, start, stop, x, width, out)
            activate(out, number, activation)


def _middle(op, numbers, part, slot, thread):
    """Compute some channels of the second hidden layer of one slot, where it has one."""
    op = fields_at(op)
    record, first, last = record_at(op, slot)
    size, middle, start = word_at(record, 0), record + 8 * MIDDLE, part * op[5]
    stop = min(start + op[5], size)
    if not word_at(middle, 0) or start >= stop:
        return
    for pair in range(first, last):
        out = op[11] + 4 * (pair * op[10] + start)
        rows_of(middle, start, stop, op[9] + 4 * pair * op[10], size, out)
        activate(out, stop - start, word_at(record, 1))


@kernel
def add_down(op, slot, start, stop, other):
    """Add what one slot returns to some channels of its entries."""
    record, first, last = record_at(op, slot)
    size = word_at(record, 0)
    hidden = op[11] if word_at(record + 8 * MIDDLE, 0) else op[9]
    for pair in range(first, last):
        entry, values = word_at(op[3], pair), other
        if size:
            rows_of(record + 8 * DOWN, start, stop, hidden + 4 * pair * op[10], size, other)
        else:
            values = op[7] + 4 * (entry * op[8] + start)
        weight = carray(floats_at(op[4]), pair + 1)[pair]
        out = carray(floats_at(op[12] + 4 * (entry * op[13] + start)), stop - start)
        update = carray(floats_at(values), stop - start)
        for i in range(stop - start):
            out[i] += weight * update[i]


def _down(op, numbers, part, item, thread):
    """Compute some channels of the layer's output for all entries."""
    op = fields_at(op)
    start, stop = part * op[5], min((part + 1) * op[5], op[6])
    for entry in range(word_at(op[16], 0)):
        place = op[12] + 4 * (entry * op[13] + start)
        out = carray(floats_at(place), stop - start)
        for i in range(stop - start):
            out[i] = np.float32(0)
        if op[14]:
            add(place, op[14] + 4 * (entry * op[15] + start), stop - start)
    for slot in range(word_at(op[1], 0)):
        add_down(op, slot, start, stop, op[17] + 4 * thread * op[18])


ROWS_UP, ROWS_MIDDLE, ROWS_DOWN = Kernel(_up), Kernel(_middle), Kernel(_down)
