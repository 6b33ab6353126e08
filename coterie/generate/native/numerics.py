"""Functions of single numbers, and the product of two vectors, as all kernels use them."""

import math

import numpy as np
from numba.np.numpy_support import carray

from coterie.generate.native.machine import as_float, exact_kernel, floats_at, kernel

SILU, GELU, GELU_TANH, RELU, RELU_SQUARED = range(5)

_LOG2_E = np.float32(1.4426950408889634)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_ROUND = np.float32(12582912.0)  # 1.5 · 2²³: adding and subtracting it rounds to a whole number
_LEAST, _MOST = np.float32(-87.0), np.float32(88.0)
_HALF, _ONE, _TWO = np.float32(0.5), np.float32(1), np.float32(2)
_ROOT_HALF = np.float32(math.sqrt(0.5))
_TANH_OUTER, _TANH_INNER = np.float32(math.sqrt(2 / math.pi)), np.float32(0.044715)
# Minimax polynomial of (eʳ − 1 − r) / r² over |r| ≤ ln 2 / 2 (Cephes, expf).
_P0, _P1, _P2, _P3, _P4, _P5 = map(np.float32, (
    1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1,
    5.0000001201e-1,
))  # fmt: skip


@exact_kernel
def exponential(x):
    """Return eˣ to about 1e-7, within the range of float32; loops over it are vectorised."""
    x = min(max(x, _LEAST), _MOST)
    whole = (x * _LOG2_E + _ROUND) - _ROUND
    rest = (x - whole * _LN2_HIGH) - whole * _LN2_LOW
    tail = ((((_P0 * rest + _P1) * rest + _P2) * rest + _P3) * rest + _P4) * rest + _P5
    value = tail * rest * rest + rest + _ONE
    return value * as_float((np.int32(whole) + np.int32(127)) << np.int32(23))


@kernel
def sigmoid(x):
    return _ONE / (_ONE + exponential(-x))


@kernel
def activated(x, activation):
    """Return an activation of one number."""
    if activation == SILU:
        return x * sigmoid(x)
    if activation == GELU:
        return _HALF * x * (_ONE + np.float32(math.erf(x * _ROOT_HALF)))
    if activation == GELU_TANH:
        inner = _TANH_OUTER * (x + _TANH_INNER * x * x * x)
        return x * (_ONE - _ONE / (exponential(_TWO * inner) + _ONE))
    positive = max(x, np.float32(0))
    return positive if activation == RELU else positive * positive


@kernel
def dot(a, b, size):
    """Return the product of two float32 vectors at addresses."""
    total = np.float32(0)
    a, b = carray(floats_at(a), size), carray(floats_at(b), size)
    for i in range(size):
        total += a[i] * b[i]
    return total
