"""The kernels equal numpy in float64, whatever number of groups a row has, and read no further."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")

from coterie.generate.native.compile import entry_point
from coterie.generate.native.quantised import (
    dot_int4_spread,
    dot_int8,
    spread_int4,
)

ROWS = 3
CLOSE = 2e-6


@entry_point
def _int8(weight, scale, x):
    rows, size = weight.shape
    out = np.zeros(rows, np.float32)
    for row in range(rows):
        first = weight.ctypes.data + row * size
        scales = scale.ctypes.data + row * scale.shape[1] * 2
        out[row] = dot_int8(first, scales, x.ctypes.data, size)
    return out


@entry_point
def _int4(packed, scale, x, spread, sums):
    rows, size = packed.shape[0], x.shape[0]
    out = np.zeros(rows, np.float32)
    spread_int4(x.ctypes.data, size, spread.ctypes.data, sums.ctypes.data)
    for row in range(rows):
        first = packed.ctypes.data + row * (size // 2)
        scales = scale.ctypes.data + row * (size // 8)
        out[row] = dot_int4_spread(first, scales, spread.ctypes.data, sums.ctypes.data, size)
    return out


def _bfloat16(values):
    """Return bits of bfloat16, cut off, and the values they stand for."""
    bits = (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return bits, (bits.astype(np.uint32) << 16).view(np.float32)


@pytest.mark.parametrize("size", [1, 31, 32, 100, 512])
def test_int8(size, rng):
    weight = rng.integers(-128, 128, (ROWS, size)).astype(np.int8)
    bits, scale = _bfloat16(rng.random((ROWS, -(-size // 32))))
    x = rng.standard_normal(size).astype(np.float32)
    expected = (weight * scale.repeat(32, 1)[:, :size].astype(np.float64)) @ x
    found = _int8(weight, bits, x)
    assert np.abs(found - expected).max() < CLOSE * 128 * np.abs(x).sum()


@pytest.mark.parametrize("groups", [1, 2, 3, 16])
def test_int4(groups, rng):
    size = 32 * groups
    numbers = rng.integers(0, 16, (ROWS, groups, 2, 16)).astype(np.uint8)
    low, high = numbers.transpose(2, 0, 1, 3)
    packed = (low | high << 4).reshape(ROWS, -1)
    # The scale of a group and then its minimum.
    bits, values = _bfloat16(rng.random((ROWS, groups, 2)) * [1, -8])
    x = rng.standard_normal(size).astype(np.float32)
    # What lies beyond must not be written to.
    spread, sums = np.full(size + 8, 7, np.float32), np.full(size // 8 + 8, 7, np.float32)
    whole = numbers.reshape(ROWS, groups, 32) * values[..., :1].astype(np.float64) + values[..., 1:]
    expected = whole.reshape(ROWS, -1) @ x
    found = _int4(packed, bits, x, spread, sums)
    assert np.abs(found - expected).max() < CLOSE * 16 * np.abs(x).sum()
    assert (spread[size:] == 7).all()
    assert (sums[size // 64 * 8 :] == 7).all()


@pytest.fixture
def rng():
    return np.random.default_rng(0)
