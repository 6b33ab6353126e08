"""Sums of a matrix's rows, each times a number: products with the matrix turned around.

One function for each way of storing it, as in `rows`, and like there read from the first row to the
last. They add to what is in `out`.
"""

import numpy as np
from numba.np.numpy_support import carray

from coterie.generate.native.compile import Kernel
from coterie.generate.native.kernels.rows import FLOAT32_ROWS, INT4_ROWS, INT8_ROWS, SIGNATURE
from coterie.generate.native.machine import as_float, bytes_at, floats_at, halves_at
from coterie.generate.native.quantised import GROUP, GROUP_BYTES


def _float32(weight, scale, start, stop, x, size, out):
    total, factors = carray(floats_at(out), size), carray(floats_at(x), stop - start)
    for row in range(start, stop):
        values, factor = carray(floats_at(weight + 4 * row * size), size), factors[row - start]
        for i in range(size):
            total[i] += factor * values[i]


def _int8(weight, scale, start, stop, x, size, out):
    total, factors = carray(floats_at(out), size), carray(floats_at(x), stop - start)
    groups = (size + GROUP - 1) // GROUP
    for row in range(start, stop):
        values = carray(bytes_at(weight + row * size), size)
        scales = carray(halves_at(scale + 2 * row * groups), groups)
        for i in range(size):
            factor = as_float(np.int32(scales[i // GROUP]) << np.int32(16)) * factors[row - start]
            total[i] += factor * np.float32(values[i])


def _int4(weight, scale, start, stop, x, size, out):
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
    rows: Kernel(function, SIGNATURE)
    for rows, function in ((FLOAT32_ROWS, _float32), (INT8_ROWS, _int8), (INT4_ROWS, _int4))
}


def sums_like(rows: int) -> int:
    """Return the function that sums a matrix's rows, by the one that multiplies with them."""
    return next(each.address for kernel, each in _SUMS.items() if kernel.address == rows)
