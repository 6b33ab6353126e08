"""The gated parallel layout: how much of each branch a token takes."""

from collections import namedtuple

from numba.np.numpy_support import carray

from coterie.generate.native.compile import Kernel
from coterie.generate.native.machine import fields_at, floats_at
from coterie.generate.native.numerics import sigmoid

Mix = namedtuple("Mix", "width shares share stream attended fed out")
"""out = stream + fed + sigmoid(share)·(attended − fed); a task is one entry.

All are rows of `width`; `shares` is 1 or `width`.
"""


def _mix(op, numbers, part, entry, thread):
    op = fields_at(op)
    width, shares, shift = op[0], op[1], 4 * entry * op[0]
    share = carray(floats_at(op[2] + 4 * entry * shares), shares)
    stream, out = carray(floats_at(op[3] + shift), width), carray(floats_at(op[6] + shift), width)
    attended, fed = carray(floats_at(op[4] + shift), width), carray(floats_at(op[5] + shift), width)
    for i in range(width):
        part = sigmoid(share[i if shares > 1 else 0])
        out[i] = stream[i] + fed[i] + part * (attended[i] - fed[i])


MIX = Kernel(_mix)
