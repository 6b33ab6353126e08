"""The router: gates, exclusion, replay, precision."""

from __future__ import annotations

import math

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


def test_bias_selects_but_never_weighs():
    _, part = build(balance="bias", experts_per_token=1, router={"score": "sigmoid"})
    x = draw()
    flat = x.flatten(0, 1)
    part.balance.selection_bias.copy_(torch.tensor([0.0, 100.0, 0.0, 0.0]))
    routing = part.router(flat, part.balance.selection_bias)
    assert (routing.indices == 1).all()
    expected = torch.sigmoid(flat @ part.router.weight[1])
    torch.testing.assert_close(routing.gates[:, 0], expected)


def test_router_stays_in_float32_inside_a_bfloat16_model():
    _, part = build()
    part = part.to(torch.bfloat16)
    _, account = part(draw().to(torch.bfloat16))
    assert account.probabilities.dtype == torch.float32


def test_gates_survive_scores_that_underflow():
    _, part = build(router={"score": "sigmoid"})
    part = part.float()
    with torch.no_grad():
        part.router.weight.fill_(-1e4)
    out, account = part(torch.ones(1, 3, WIDTH))
    assert torch.isfinite(out).all()
    assert math.isfinite(float(account.entropy))
