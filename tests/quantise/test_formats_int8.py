"""int8: no value is further away than half a step."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from coterie.quantise import Int8Tensor, Int8Weights


@given(st.integers(0, 2**31), st.integers(1, 70), st.floats(1e-6, 1e6))
def test_is_within_half_a_step(seed, size, spread):
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(2, 5, size, generator=draw) * spread
    weight[0, 0] = 0.0
    made = Int8Tensor.of(weight)
    step = made.scale.float().repeat_interleave(32, -1)[..., :size]
    assert ((made.dequantise() - weight).abs() <= step * 0.5001).all()
    assert (made.data8[1].abs().amax(-1) >= 126).all()  # the scale is rounded up to bfloat16


def test_choices_follow_roles():
    weight = torch.randn(4, 32)
    assert Int8Weights().quantised(weight, "matrix") is not None
    assert Int8Weights().quantised(weight, "head") is not None
    assert Int8Weights(head="float32").quantised(weight, "head") is None
    assert Int8Weights(embedding="float32").quantised(weight, "table") is None
    for role in ("router", "norm", "bias"):
        assert Int8Weights().quantised(weight, role) is None
