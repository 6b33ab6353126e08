"""The kernels equal numpy in float64, whatever number of groups a row has, and read no further."""

from __future__ import annotations

import numpy as np
import pytest

numba = pytest.importorskip("numba")

from coterie.generate.native.quantised import (  # noqa: E402
    dot_int4,
    dot_int4_spread,
    dot_int8,
    spread_int4,
)

ROWS = 3
CLOSE = 2e-6


@numba.njit
def _int8(weight, x):
    rows, size = weight.shape
    out = np.zeros(rows, np.float32)
    for row in range(rows):
        out[row] = dot_int8(weight.ctypes.data + row * size, x.ctypes.data, size)
    return out


@numba.njit
def _int4(packed, scale, x, spread, shift):
    rows, size = packed.shape[0], x.shape[0]
    out = np.zeros((2, rows), np.float32)
    spread_int4(x.ctypes.data, size, spread.ctypes.data, shift.ctypes.data)
    for row in range(rows):
        first = packed.ctypes.data + row * (size // 2)
        scales = scale.ctypes.data + row * (size // 8)
        out[0, row] = dot_int4(first, scales, x.ctypes.data, size)
        out[1, row] = dot_int4_spread(first, scales, spread.ctypes.data, shift.ctypes.data, size)
    return out


@pytest.mark.parametrize("size", [1, 31, 32, 100, 512])
def test_int8(size, rng):
    weight = rng.integers(-128, 128, (ROWS, size)).astype(np.int8)
    x = rng.standard_normal(size).astype(np.float32)
    expected = weight.astype(np.float64) @ x
    found = _int8(weight, x)
    assert np.abs(found - expected).max() < CLOSE * np.abs(weight).max() * np.abs(x).sum()


@pytest.mark.parametrize("groups", [1, 2, 3, 16])
def test_int4(groups, rng):
    size = 32 * groups
    numbers = rng.integers(-8, 8, (ROWS, groups, 2, 16))
    low, high = (numbers + 8).astype(np.uint8).transpose(2, 0, 1, 3)
    packed = (low | high << 4).reshape(ROWS, -1)
    scale = rng.random((ROWS, groups)).astype(np.float32)
    x = rng.standard_normal(size).astype(np.float32)
    # What lies beyond must not be written to.
    spread, shift = np.full(size + 8, 7, np.float32), np.full(size // 8 + 8, 7, np.float32)
    expected = (numbers.reshape(ROWS, groups, 32) * scale[..., None]).reshape(ROWS, -1) @ x
    found = _int4(packed, scale, x, spread, shift)
    assert np.abs(found - expected).max() < CLOSE * 8 * np.abs(x).sum()
    assert (spread[size:] == 7).all()
    assert (shift[size // 64 * 8 :] == 7).all()


@pytest.fixture
def rng():
    return np.random.default_rng(0)
