"""Dispatch and combine have the right derivatives, in half precision too."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from coterie.model.experts import dispatch
from coterie.model.experts.dispatch import LocalDispatcher, _Combine, sort_pairs


def test_dispatch_and_combine_have_the_right_derivatives():
    indices = torch.tensor([[0, 2], [3, 1], [3, 3], [2, 0]])
    dispatcher = LocalDispatcher(3)

    def there_and_back(x, gates):
        rows, counts, route = dispatcher.dispatch(x, indices, partial=True)
        assert counts.tolist() == [2, 1, 2]
        return dispatcher.combine(rows.tanh(), gates, route)

    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    gates = torch.rand(4, 2, dtype=torch.float64).masked_fill(indices == 3, 0).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: there_and_back(x, gates), (x,))
    (found,) = torch.autograd.grad(there_and_back(x, gates).sum(), gates)
    expected = x.tanh().sum(-1, keepdim=True).expand(4, 2).masked_fill(indices == 3, 0)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_of_another_type_are_taken(dtype):
    # In half precision under autocast on CUDA, sums and what follows them are float32.
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


def test_a_pair_without_an_expert_adds_nothing_whatever_its_gate():
    indices = torch.tensor([[0, 3], [3, 1]])
    dispatcher, x = LocalDispatcher(3), torch.tensor([[1.0], [2.0]])
    rows, _, route = dispatcher.dispatch(x, indices, partial=True)
    assert dispatcher.combine(rows, torch.ones(2, 2), route).tolist() == [[1.0], [2.0]]


@pytest.mark.parametrize("rows_at_once", [2, 5, 1024])
def test_one_pass_and_slices_equal_the_definition(rows_at_once, monkeypatch):
    monkeypatch.setattr(dispatch, "_ROWS_AT_ONCE", rows_at_once)
    generator = torch.Generator().manual_seed(1)
    indices = torch.stack([torch.randperm(4, generator=generator)[:3] for _ in range(7)])
    x, wanted = (torch.randn(7, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    gates = torch.rand(7, 3, generator=generator, dtype=torch.float64)
    maps = torch.randn(4, 5, 5, generator=generator, dtype=torch.float64)

    def sent(x, gates):
        rows, counts, route = dispatch.LocalDispatcher(4).dispatch(x, indices, partial=False)
        owner = torch.arange(4).repeat_interleave(counts)
        return dispatch.LocalDispatcher(4).combine(
            torch.einsum("rd,rdf->rf", rows, maps[owner]), gates, route
        )

    def defined(x, gates):
        return torch.einsum("nd,nkdf,nk->nf", x, maps[indices], gates)

    leaves = [x.requires_grad_(), gates.requires_grad_()]
    found, expected = sent(*leaves), defined(*leaves)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    for one, other in zip(torch.autograd.grad(found, leaves, wanted),
                          torch.autograd.grad(expected, leaves, wanted), strict=True):  # fmt: skip
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
