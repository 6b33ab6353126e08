"""int4: half a step where nothing is cut off, and a search that only ever helps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coterie.quantise import Int4Tensor, Int4Weights, Int8Tensor


def grid(made: Int4Tensor, size: int) -> tuple[torch.Tensor, ...]:
    """Return the step of every element and the middle of what its group can hold."""
    scale, minimum = made.scale.float().repeat_interleave(32, -2)[..., :size, :].unbind(-1)
    return scale, minimum + 7.5 * scale


@given(st.integers(0, 2**31), st.integers(1, 100), st.floats(1e-6, 1e6))
def test_is_within_half_a_step(seed, size, spread):
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(3, size, generator=draw) * spread
    weight[0] = 0.0
    plain = Int4Tensor.of(weight, search=False)
    assert ((plain.dequantise() - weight).abs() <= grid(plain, size)[0] * 0.5001).all()
    searched = Int4Tensor.of(weight)
    step, middle = grid(searched, size)
    kept = (weight - middle).abs() <= 8 * step
    assert kept.float().mean() > 0.9
    assert ((searched.dequantise() - weight).abs() <= step * 0.5001)[kept].all()


def test_a_search_lessens_the_error_of_every_group():
    torch.manual_seed(1)
    weight = torch.randn(64, 64)
    errors = [
        (Int4Tensor.of(weight, search=search).dequantise() - weight)
        .square()
        .unflatten(-1, (-1, 32))
        .sum(-1)
        for search in (False, True)
    ]
    assert (errors[1] <= errors[0] * 1.0001).all()
    assert errors[1].sum() < 0.95 * errors[0].sum()


def test_nibbles_lie_as_kernels_read_them():
    numbers = torch.arange(32.0) % 16
    made = Int4Tensor.of(numbers[None] - 4, search=False)
    assert made.scale.tolist() == [[[1.0, -4.0]]]
    low, high = made.packed[0] & 15, made.packed[0] >> 4
    assert torch.equal(low.float(), numbers[:16])
    assert torch.equal(high.float(), numbers[16:])


@pytest.mark.parametrize(("said", "kind"), [("int8", Int8Tensor), ("int4", Int4Tensor)])
def test_embedding_and_head_have_settings_of_their_own(said, kind):
    weight = torch.randn(4, 32)
    weights = Int4Weights(embedding=said, head="float32")
    assert type(weights.quantised(weight, "embedding")) is kind
    assert type(weights.quantised(weight, "matrix")) is Int4Tensor
    assert weights.quantised(weight, "head") is None
    assert weights.quantised(weight, "router") is None
