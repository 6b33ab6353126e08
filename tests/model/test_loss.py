"""The loss of each position is its definition, however the positions are sliced."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from coterie.model import loss
from coterie.model.loss import cross_entropy


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("at_once", [1, 40, 1 << 25])
def test_each_loss_and_its_gradient_are_as_defined_however_it_is_sliced(bias, at_once, monkeypatch):
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", at_once)
    monkeypatch.setattr(loss, "_ON_CPU", at_once)
    inputs = [torch.randn(7, 4), torch.randn(11, 4), torch.randn(11)]
    hidden, weight, vector = (each.double().requires_grad_() for each in inputs)
    targets = torch.tensor([3, -100, 0, 10, -100, 5, 5])
    used = [hidden, weight, *([vector] if bias else [])]
    found = cross_entropy(hidden, weight, vector if bias else None, targets)
    logits = F.linear(hidden, weight, vector if bias else None)
    expected = torch.stack(
        [-logits[i].log_softmax(-1)[t] if t >= 0 else logits.new_zeros(())
         for i, t in enumerate(targets.tolist())]
    )  # fmt: skip
    torch.testing.assert_close(found, expected)
    share = torch.rand(7).double()
    gradients = torch.autograd.grad((share * expected).sum(), used)
    for one, other in zip(torch.autograd.grad((share * found).sum(), used), gradients, strict=True):
        torch.testing.assert_close(one, other)
    with torch.no_grad():
        again = cross_entropy(hidden, weight, vector if bias else None, targets)
    torch.testing.assert_close(again, expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_gradient_of_their_sum_needs_no_logits_again(dtype, monkeypatch):
    inputs = [torch.randn(7, 4), torch.randn(11, 4), torch.randn(11)]
    used = [each.double().requires_grad_() for each in inputs]
    targets = torch.tensor([3, -100, 0, 10, -100, 5, 5])
    expected = F.cross_entropy(F.linear(*used), targets, reduction="sum") * 0.3
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", 40)
    monkeypatch.setattr(loss, "_ON_CPU", 40)
    monkeypatch.setattr(loss, "_slice_losses", None)
    floats = torch.float64 if dtype == torch.float64 else torch.float32
    ours = [each.detach().to(floats).requires_grad_() for each in used]
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float64):
        found = cross_entropy(*ours, targets)
    assert found.dtype == floats
    near = {"rtol": 0, "atol": 1e-12 if dtype == torch.float64 else 0.05}
    total = found.view(7, 1).sum() * 0.3
    torch.testing.assert_close(total.double(), expected, **near)
    for _ in range(2):  # the graph may be walked twice
        pairs = zip(
            torch.autograd.grad(total, ours, retain_graph=True),
            torch.autograd.grad(expected, used, retain_graph=True), strict=True,
        )  # fmt: skip
        for one, other in pairs:
            assert one.dtype == floats
            torch.testing.assert_close(one.double(), other, **near)


def test_losses_are_at_least_float32():
    hidden, weight = torch.randn(3, 4).bfloat16(), torch.randn(11, 4).bfloat16()
    assert cross_entropy(hidden, weight, None, torch.tensor([1, 2, 3])).dtype == torch.float32
