"""The selection bias: how it moves, what it holds, its sequence loss."""

from __future__ import annotations

import pytest
import torch

from coterie.model.experts import MixtureOfExperts

WIDTH = 8


def pack(kind="gated", width=12, count=4, bias=True):
    return {"mlp": {"kind": kind, "width": width, "bias": bias}, "count": count}


def build(**changes):
    base = {"experts": [pack()], "experts_per_token": 2}
    settings = MixtureOfExperts.model_validate(base | changes)
    settings.check(WIDTH)
    part = settings.build(WIDTH).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    return settings, part


def draw(batch=2, length=7):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, length, WIDTH, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("rule", ["sign", "proportional"])
def test_bias_moves_as_its_rule_says(rule):
    _, part = build(balance={"kind": "bias", "rate": 0.1, "rule": rule})
    load = torch.tensor([8, 0, 2, 2])
    part.balance.update(load)
    step = [-1, 1, 1, 1] if rule == "sign" else [-5 / 3, 1, 1 / 3, 1 / 3]
    mean = sum(step) / 4
    expected = torch.tensor([0.1 * (each - mean) for each in step])
    torch.testing.assert_close(part.balance.selection_bias, expected)
    part.balance.update(torch.zeros(4, dtype=torch.int64))
    assert torch.isfinite(part.balance.selection_bias).all()


def test_bias_brings_balance_to_a_skewed_router():
    _, part = build(balance={"kind": "bias", "rate": 0.004}, router={"score": "sigmoid"})
    x = draw(4, 64) + 0.7  # a common direction makes some experts everyone's favourites
    first = part(x)[1].load
    for _ in range(300):
        part.balance.update(part(x)[1].load)
    last = part(x)[1].load.float()
    assert first.max() / first.float().mean() > 1.3
    assert last.max() / last.mean() < 1.1


def test_bias_stays_in_float32_and_follows_devices():
    _, part = build(balance="bias")
    part.balance.update(torch.tensor([1, 2, 3, 9]))
    before = part.balance.selection_bias.clone()
    for dtype in (torch.bfloat16, torch.float64, torch.float16):
        part.to(dtype)
        assert part.balance.selection_bias.dtype == torch.float32
        assert torch.equal(part.balance.selection_bias, before)
    assert part.to("meta").balance.selection_bias.device.type == "meta"
    assert "balance.selection_bias" in part.state_dict()
