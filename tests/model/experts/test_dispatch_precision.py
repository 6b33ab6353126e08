"""Combining in half precision, where what comes back is float32: as under autocast on CUDA."""

from types import SimpleNamespace

import pytest
import torch

from coterie.model.experts.dispatch import LocalDispatcher, _Combine, sort_pairs


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_of_another_type_are_taken(dtype):
    generator = torch.Generator().manual_seed(1)
    indices = torch.tensor([[0, 2], [1, 0], [2, 1]])
    permutation, _ = sort_pairs(indices, 3, partial=False)
    rows = torch.randn(6, 4, generator=generator).to(dtype)
    gates = torch.rand(3, 2, generator=generator).to(dtype)
    out = LocalDispatcher(3).combine(rows.requires_grad_(), gates, permutation)
    assert out.dtype == dtype
    gradient = torch.randn(3, 4, generator=generator)
    saved = SimpleNamespace(saved_tensors=(rows.detach(), gates, *permutation))
    grad_rows, grad_gates, *_ = _Combine.backward(saved, gradient)
    expected = torch.autograd.grad(out, rows, gradient.to(dtype))[0]
    assert torch.equal(grad_rows, expected)
    assert grad_gates.dtype == dtype
