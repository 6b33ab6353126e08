"""Products of a vector with some rows of a matrix, one function for each way of storing it.

Operations call them by address, so that any matrix may be stored in any way. All read the matrix
once, from its first row to its last, which is what the memory is fastest at.
"""

from __future__ import annotations

import numpy as np
from numba.np.numpy_support import carray

from coterie.generate.native.compile import Kernel
from coterie.generate.native.machine import as_float, bytes_at, floats_at, halves_at, kernel
from coterie.generate.native.numerics import dot

GROUP = 32
"""Elements of an int4 row that share a scale."""
_SIGNATURE = "void(int64, int64, int64, int64, int64, int64, int64)"


@kernel
def bfloat16_dot(row, x, size):
    """Return the product of a bfloat16 and a float32 vector."""
    total = np.float32(0)
    a, b = carray(halves_at(row), size), carray(floats_at(x), size)
    for i in range(size):
        total += as_float(np.int32(a[i]) << np.int32(16)) * b[i]
    return total


@kernel
def int8_dot(row, x, size):
    """Return the product of an int8 and a float32 vector."""
    total = np.float32(0)
    a, b = carray(bytes_at(row), size), carray(floats_at(x), size)
    for i in range(size):
        total += np.float32(a[i]) * b[i]
    return total


@kernel
def int4_dot(row, scale, x, size):
    """Return the product of a row of int4 groups and a float32 vector.

    A group of 32 has one scale and 16 bytes: low nibbles are its first half, high nibbles its
    second, each 8 more than its value.
    """
    total = np.float32(0)
    scales = carray(floats_at(scale), size // GROUP)
    for group in range(size // GROUP):
        packed = carray(bytes_at(row + 16 * group), 16)
        b = carray(floats_at(x + 4 * GROUP * group), GROUP)
        part = np.float32(0)
        for i in range(16):
            low = np.int32(packed[i]) & np.int32(15)
            high = (np.int32(packed[i]) >> np.int32(4)) & np.int32(15)
            part += np.float32(low - np.int32(8)) * b[i]
            part += np.float32(high - np.int32(8)) * b[i + 16]
        total += part * scales[group]
    return total


def _float32(weight, scale, start, stop, x, size, out):
    values = carray(floats_at(out), stop - start)
    for row in range(start, stop):
        values[row - start] = dot(weight + 4 * row * size, x, size)


def _bfloat16(weight, scale, start, stop, x, size, out):
    values = carray(floats_at(out), stop - start)
    for row in range(start, stop):
        values[row - start] = bfloat16_dot(weight + 2 * row * size, x, size)


def _int8(weight, scale, start, stop, x, size, out):
    values, scales = carray(floats_at(out), stop - start), carray(floats_at(scale), stop)
    for row in range(start, stop):
        values[row - start] = int8_dot(weight + row * size, x, size) * scales[row]


def _int4(weight, scale, start, stop, x, size, out):
    values, groups = carray(floats_at(out), stop - start), size // GROUP
    for row in range(start, stop):
        packed, scales = weight + 16 * row * groups, scale + 4 * row * groups
        values[row - start] = int4_dot(packed, scales, x, size)


FLOAT32_ROWS, BFLOAT16_ROWS, INT8_ROWS, INT4_ROWS = (
    Kernel(each, _SIGNATURE) for each in (_float32, _bfloat16, _int8, _int4)
)
