"""Normalisation of vectors: RMSNorm and LayerNorm, with gain and bias or without."""

from collections import namedtuple

import numpy as np
from numba.np.numpy_support import carray

from coterie.generate.native.compile import Kernel
from coterie.generate.native.machine import fields_at, floats_at, kernel, number_at

NO_NORM, RMS, LAYER = range(3)


Normalise = namedtuple("Normalise", "kind gain bias width source source_stride out out_stride")
"""out = norm(in); a task is one entry, `epsilon` is the operation's number."""


@kernel
def normalise_vector(kind, gain, bias, epsilon, source, out, width):
    """Normalise one vector; source and out may be the same."""
    a, b = carray(floats_at(source), width), carray(floats_at(out), width)
    mean, square = np.float32(0), np.float32(0)
    if kind == LAYER:
        for i in range(width):
            mean += a[i]
        mean /= np.float32(width)
    for i in range(width):
        square += (a[i] - mean) * (a[i] - mean)
    factor = np.float32(1) / np.sqrt(square / np.float32(width) + epsilon)
    for i in range(width):
        b[i] = (a[i] - mean) * factor
    if gain:
        c = carray(floats_at(gain), width)
        for i in range(width):
            b[i] *= c[i]
    if bias:
        c = carray(floats_at(bias), width)
        for i in range(width):
            b[i] += c[i]


def _normalise(op, numbers, part, entry, thread):
    op = fields_at(op)
    source, out = op[4] + 4 * entry * op[5], op[6] + 4 * entry * op[7]
    normalise_vector(op[0], op[1], op[2], number_at(numbers, 0), source, out, op[3])


NORMALISE = Kernel(_normalise)
