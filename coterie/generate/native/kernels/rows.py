"""Products of a vector with some rows of a matrix, one function for each way of storing it.

Operations call them by address, so that any matrix may be stored in any way. All read the matrix
once, from its first row to its last, which is what the memory is fastest at. So do the sums of
rows, each times a number: products with the matrix turned around, added to what is in `out`.
"""

import numpy as np
from numba.np.numpy_support import carray

from coterie.generate.native.compile import Kernel
from coterie.generate.native.machine import as_float, bytes_at, floats_at, halves_at
from coterie.generate.native.numerics import dot
from coterie.generate.native.quantised import (
    GROUP,
    GROUP_BYTES,
    dot_int4_spread,
    dot_int8,
    spread_int4,
)

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


def _add_float32(weight, scale, start, stop, x, size, out):
    total, factors = carray(floats_at(out), size), carray(floats_at(x), stop - start)
    for row in range(start, stop):
        values, factor = carray(floats_at(weight + 4 * row * size), size), factors[row - start]
        for i in range(size):
            total[i] += factor * values[i]


def _add_int8(weight, scale, start, stop, x, size, out):
    total, factors = carray(floats_at(out), size), carray(floats_at(x), stop - start)
    groups = (size + GROUP - 1) // GROUP
    for row in range(start, stop):
        values = carray(bytes_at(weight + row * size), size)
        scales = carray(halves_at(scale + 2 * row * groups), groups)
        for i in range(size):
            factor = as_float(np.int32(scales[i // GROUP]) << np.int32(16)) * factors[row - start]
            total[i] += factor * np.float32(values[i])


def _add_int4(weight, scale, start, stop, x, size, out):
    total, factors = carray(floats_at(out), size), carray(floats_at(x), stop - start)
    groups = (size + GROUP - 1) // GROUP
    for row in range(start, stop):
        packed = carray(bytes_at(weight + row * groups * GROUP_BYTES), groups * GROUP_BYTES)
        grids = carray(halves_at(scale + 4 * row * groups), 2 * groups)
        for i in range(size):
            group, place = i // GROUP, i % GROUP
            both = np.int32(packed[group * GROUP_BYTES + place % GROUP_BYTES])
            nibble = (both >> np.int32(4) if place >= GROUP_BYTES else both) & np.int32(15)
            width = as_float(np.int32(grids[2 * group]) << np.int32(16))
            least = as_float(np.int32(grids[2 * group + 1]) << np.int32(16))
            total[i] += factors[row - start] * (width * np.float32(nibble) + least)


_SUMS = {
    FLOAT32_ROWS: Kernel(_add_float32, SIGNATURE),
    INT8_ROWS: Kernel(_add_int8, SIGNATURE),
    INT4_ROWS: Kernel(_add_int4, SIGNATURE),
}


def sums_like(rows: int) -> int:
    """Return the function that sums a matrix's rows, by the one that multiplies with them."""
    return next(each.address for kernel, each in _SUMS.items() if kernel.address == rows)
