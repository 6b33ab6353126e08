"""Codes: numbers come back within half a step, and an outlier costs its own group alone."""

import pytest
import torch

from coterie.generate.cache.mixed import STEP_ROUNDING, decode_into, encode


def back(x, dim, bits):
    codes = encode(x, dim, bits)
    out = torch.empty_like(x)
    decode_into(out, codes, bits)
    return out, codes


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("dim", [-2, -1])
@pytest.mark.parametrize("channels", [1, 7, 8])
def test_numbers_come_back_within_half_a_step(bits, dim, channels):
    x = torch.randn(3, 2, 32, channels, generator=torch.Generator().manual_seed(0))
    out, codes = back(x, dim, bits)
    step = codes.step.float()
    assert ((out - x).abs() <= step / 2 * 1.001 + 1e-7).all()
    exact = (x.amax(dim, keepdim=True) - x.amin(dim, keepdim=True)) / ((1 << bits) - 1)
    assert (step <= exact * (1 + STEP_ROUNDING) + 1e-30).all()
    assert (step >= exact).all()
    assert codes.codes.shape[-1] == (channels if bits == 8 else (channels + 1) // 2)
    assert codes.codes.dtype == torch.uint8


@pytest.mark.parametrize("bits", [8, 4])
def test_an_outlier_costs_its_own_group_alone(bits):
    x = torch.randn(2, 32, 6, generator=torch.Generator().manual_seed(1))
    wild = x.clone()
    wild[..., 2] *= 1e4
    wild[..., 3] += 1e4  # far away, with the same differences
    (tame, _), (out, codes) = back(x, -2, bits), back(wild, -2, bits)
    others = [0, 1, 4, 5]
    assert torch.equal(out[..., others], tame[..., others])
    assert ((out - wild).abs() <= codes.step.float() / 2 + 1e-3).all()


@pytest.mark.parametrize("bits", [8, 4])
def test_equal_numbers_come_back_as_they_were(bits):
    x = torch.tensor([3.7, -1e-3, 0.0, 1e30]).expand(4, 4)
    assert torch.equal(back(x, -2, bits)[0], x)


def test_what_is_not_finite_stays_visible():
    x = torch.zeros(4, 3)
    x[1, 1] = torch.nan
    out, _ = back(x, -2, 8)
    assert out[:, 1].isnan().all()
    assert torch.equal(out[:, [0, 2]], x[:, [0, 2]])
