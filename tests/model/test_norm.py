"""RMS norm and its derivative by definition."""

from __future__ import annotations

import pytest
import torch

from coterie.model.norm import RMSNorm


@pytest.mark.parametrize("scale", [True, False])
def test_rms_norm_and_its_derivative(scale):
    part = RMSNorm(epsilon=1e-3, scale=scale).build(6).double()
    if scale:
        torch.nn.init.normal_(part.weight)
    x = torch.randn(2, 5, 6, dtype=torch.float64).requires_grad_()
    weight = part.weight if scale else 1.0
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt() * weight
    torch.testing.assert_close(part(x), expected)
    assert torch.autograd.gradcheck(lambda value: part(value), (x,))
    if scale:
        expected.square().sum().backward()
        by_hand = part.weight.grad.clone()
        part.weight.grad = None
        part(x).transpose(0, 1).square().sum().backward()  # a gradient that is not contiguous
        torch.testing.assert_close(part.weight.grad, by_hand)
