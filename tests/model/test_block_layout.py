"""Parallel branches by their formulas; operations counted exactly."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from coterie.model import count


def rms(x, weight):
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


@pytest.mark.parametrize("gate", ["none", "token", "channel"])
@pytest.mark.parametrize("norms", ["shared", "own"])
def test_parallel_branches_are_mixed_by_the_formula(gate, norms, make_decoder):
    block = make_decoder(block_layout={"kind": "parallel", "gate": gate, "norms": norms}).blocks[1]
    x = torch.randn(2, 7, 16, dtype=torch.float64)
    out, _ = block(x)
    normal = rms(x, block.attention_norm.weight)
    other = normal if norms == "shared" else rms(x, block.feedforward_norm.weight)
    attended, (fed, _) = block.attention(normal), block.feedforward(other)
    expected = torch.empty_like(x)
    for row in range(2):
        for t in range(7):
            a, f = attended[row, t], fed[row, t]
            if gate == "none":
                expected[row, t] = x[row, t] + a + f
                continue
            part = block.block_layout
            sums = (part.gate * normal[row, t]).sum(-1) + part.gate_bias
            share = 1 / (1 + torch.exp(-sums))
            expected[row, t] = x[row, t] + share * a + (1 - share) * f
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)


def test_a_gate_without_bias_and_weights_takes_half_of_each(make_decoder):
    settings = {"kind": "parallel", "gate": "channel", "gate_bias": False}
    block = make_decoder(block_layout=settings).blocks[0]
    torch.nn.init.zeros_(block.block_layout.gate)
    x = torch.randn(1, 5, 16, dtype=torch.float64)
    normal = rms(x, block.attention_norm.weight)
    expected = x + (block.attention(normal) + block.feedforward(normal)[0]) / 2
    torch.testing.assert_close(block(x)[0], expected)


@pytest.mark.parametrize("gate", ["none", "token", "channel"])
@pytest.mark.parametrize("further", [{}, {"value": {}}])
def test_operations_are_counted_exactly(gate, further, make_settings):
    settings = make_settings(block_layout={"kind": "parallel", "gate": gate}, **further)
    decoder = settings.build()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        decoder(torch.zeros(1, 1, dtype=torch.long))
    one = count(settings).flops_per_token(1)
    attention = 2 * 4 * 16  # of two layers; the counter leaves out the kernel for one query
    assert counter.get_total_flops() == one - attention
