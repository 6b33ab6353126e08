# pyright: basic, reportOptionalMemberAccess=false, reportOptionalSubscript=false
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalOperand=false
"""Adapters: at full rank they take the step of full tuning; their gradients are autograd's."""

from __future__ import annotations

import pytest
import torch

from coterie.align.lora import Adapters
from coterie.align.settings import Lora


def graded(decoder):
    tokens = torch.arange(24).reshape(2, 12) % 20
    decoder.zero_grad()
    decoder(tokens, tokens.roll(-1, 1)).losses.mean().backward()


@pytest.fixture
def fresh(base):
    return lambda: type(base.decoder)(base.decoder.settings).double()


def loaded(base, fresh):
    decoder = fresh()
    decoder.load_state_dict(base.decoder.state_dict())
    return decoder.eval()


def test_full_rank_takes_the_step_of_full_tuning(base, fresh):
    plain, adapted = loaded(base, fresh), loaded(base, fresh)
    adapters = Adapters(adapted, Lora(rank="full", scale=1.0))
    graded(plain)
    graded(adapted)
    rate = 0.1
    names = {each.name.removesuffix(".lora_b") for each in adapters.parameters[1::2]}
    assert any("experts" in name for name in names)
    before = dict(base.decoder.double().named_parameters())
    with torch.no_grad():
        for each in adapters.parameters:
            each.tensor.sub_(rate * each.tensor.grad)
    adapters.moved()
    moved = dict(adapted.named_parameters())
    for name, parameter in plain.named_parameters():
        expected = before[name] - (rate * parameter.grad if name in names else 0)
        assert torch.allclose(moved[name], expected, atol=1e-13), name
        assert moved[name].grad is None


def test_gradients_are_those_of_autograd_through_the_product(base, fresh):
    decoder = loaded(base, fresh)
    adapters = Adapters(decoder, Lora(rank=3, scale=1.7))
    with torch.no_grad():
        for each in adapters.parameters:
            each.tensor.copy_(torch.randn_like(each.tensor) * 0.1)
    adapters.moved()
    graded(decoder)
    original = dict(base.decoder.double().named_parameters())
    twin = loaded(base, fresh)
    leaves = {e.name: e.tensor.detach().clone().requires_grad_() for e in adapters.parameters}
    names = [each.name.removesuffix(".lora_b") for each in adapters.parameters[1::2]]
    merged = {
        n: original[n].detach() + 1.7 * leaves[f"{n}.lora_b"] @ leaves[f"{n}.lora_a"] for n in names
    }
    tokens = torch.arange(24).reshape(2, 12) % 20
    out = torch.func.functional_call(twin, merged, (tokens, tokens.roll(-1, 1)))
    out.losses.mean().backward()
    for each in adapters.parameters:
        assert torch.allclose(each.tensor.grad, leaves[each.name].grad, atol=1e-12), each.name
