"""Normalisation of vectors, their products with a matrix, and the gated parallel layout."""

from collections import namedtuple

import numpy as np
from numba.np.numpy_support import carray

from coterie.generate.native.compile import Kernel
from coterie.generate.native.machine import (
    fields_at,
    floats_at,
    kernel,
    number_at,
    rows_product,
    word_at,
)
from coterie.generate.native.numerics import sigmoid

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


Product = namedtuple(
    "Product",
    "entries chunk rows weight scale bias source source_stride inner outer out out_stride "
    "residual residual_stride",
)
"""out = in · weightᵀ + bias + residual for every entry; a task computes `chunk` rows.

`rows` is the function for how the matrix is stored; a bias or residual of 0 stands for none;
strides are in elements.
"""


@kernel
def add(target, source, number):
    a, b = carray(floats_at(target), number), carray(floats_at(source), number)
    for i in range(number):
        a[i] += b[i]


def _product(op, numbers, part, item, thread):
    op = fields_at(op)
    start = part * op[1]
    stop = min(start + op[1], op[9])
    for entry in range(word_at(op[0], 0)):
        out = op[10] + 4 * (entry * op[11] + start)
        rows_product(op[2], op[3], op[4], start, stop, op[6] + 4 * entry * op[7], op[8], out)
        if op[5]:
            add(out, op[5] + 4 * start, stop - start)
        if op[12]:
            add(out, op[12] + 4 * (entry * op[13] + start), stop - start)


PRODUCT = Kernel(_product)


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
