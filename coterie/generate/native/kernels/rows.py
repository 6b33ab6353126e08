"""Products of a vector with some rows of a matrix, one function for each way of storing it.

Operations call them by address, so that any matrix may be stored in any way. All read the matrix
once, from its first row to its last, which is what the memory is fastest at.
"""

import numpy as np
from numba.np.numpy_support import carray

from coterie.generate.native.compile import Kernel
from coterie.generate.native.machine import floats_at
from coterie.generate.native.numerics import dot
from coterie.generate.native.quantised import GROUP, dot_int4_spread, dot_int8, spread_int4

SIGNATURE = "void(int64, int64, int64, int64, int64, int64, int64)"


def _float32(weight, scale, start, stop, x, size, out):
    values = carray(floats_at(out), stop - start)
    for row in range(start, stop):
        values[row - start] = dot(weight + 4 * row * size, x, size)


def _int8(weight, scale, start, stop, x, size, out):
    values, groups = carray(floats_at(out), stop - start), (size + GROUP - 1) // GROUP
    for row in range(start, stop):
        first, scales = weight + row * size, scale + 2 * row * groups
        values[row - start] = dot_int8(first, scales, x, size)  # pyright: ignore[reportCallIssue]


def _int4(weight, scale, start, stop, x, size, out):
    """The last group of a row is stored as a whole one; x is filled up with zeros for it."""
    values, groups = carray(floats_at(out), stop - start), (size + GROUP - 1) // GROUP
    whole = groups * GROUP
    room = np.zeros(2 * whole + whole // 8, np.float32)
    room[:size] = carray(floats_at(x), size)
    filled = room.ctypes.data
    spread, sums = filled + 4 * whole, filled + 8 * whole
    spread_int4(filled, whole, spread, sums)  # pyright: ignore[reportCallIssue]
    for row in range(start, stop):
        packed, scales = weight + 16 * row * groups, scale + 4 * row * groups
        values[row - start] = dot_int4_spread(packed, scales, spread, sums, whole)


FLOAT32_ROWS, INT8_ROWS, INT4_ROWS = (Kernel(each, SIGNATURE) for each in (_float32, _int8, _int4))
