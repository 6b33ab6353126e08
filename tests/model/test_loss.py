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


def test_losses_are_at_least_float32():
    hidden, weight = torch.randn(3, 4).bfloat16(), torch.randn(11, 4).bfloat16()
    assert cross_entropy(hidden, weight, None, torch.tensor([1, 2, 3])).dtype == torch.float32
