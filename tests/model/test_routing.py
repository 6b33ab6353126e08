"""Routing, balance and accounts against naive computations, one token at a time, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from coterie.foundation.settings import kind_of, members
from coterie.model.context import ForwardContext
from coterie.model.experts import Kernel, MixtureOfExperts

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


def swiglu(x, body, e):
    gate = F.silu(body.gate[e] @ x + body.gate_bias[e])
    return body.down[e] @ (gate * (body.up[e] @ x + body.up_bias[e])) + body.down_bias[e]


def gelu(x, body, e):
    return body.down[e] @ F.gelu(body.up[e] @ x + body.up_bias[e]) + body.down_bias[e]


def naive(settings, part, x):
    """Compute each token by itself, expert by expert, from the definitions."""
    router, k = settings.router, settings.experts_per_token
    answers, chosen = [], []
    for token in x.flatten(0, 1):
        logits = part.router.weight @ token
        scores = logits.softmax(-1) if router.score.kind == "softmax" else torch.sigmoid(logits)
        bias = part.balance.selection_bias
        ranked = scores if bias is None else scores + bias.double()
        best = sorted(range(len(ranked)), key=lambda e: -float(ranked[e].detach()))[:k]
        gates = [scores[e] for e in best]
        if router.renormalise or (router.renormalise is None and k > 1):
            gates = [gate / sum(gates) for gate in gates]
        answer = torch.zeros_like(token)
        for e, gate in zip(best, gates, strict=True):
            first = part.experts[0].count
            body, index = (part.experts[0], e) if e < first else (part.experts[1], e - first)
            function = gelu if type(body).__name__.startswith("Plain") else swiglu
            answer = answer + router.scale * gate * function(token, body, index)
        for shared in part.shared:
            answer = answer + shared(token[None])[0]
        answers.append(answer)
        chosen.append(best)
    return torch.stack(answers).view(x.shape), chosen


CASES = {
    "softmax": {},
    "top-1": {"experts_per_token": 1},
    "all": {"experts_per_token": 4},
    "not renormalised": {"router": {"renormalise": False, "scale": 2.5}},
    "sigmoid": {"router": {"score": "sigmoid"}},
    "sigmoid plain": {"router": {"score": "sigmoid", "renormalise": False}, "shared_experts": 2},
    "bias": {"balance": "bias"},
    "two packs": {"experts": [pack(), pack("mlp", 20, 3)]},
    "shared body": {"shared_experts": 1, "shared_mlp": {"kind": "mlp", "width": 5}},
}


@pytest.mark.parametrize("compute", [kind_of(member) for member in members(Kernel)])
@pytest.mark.parametrize("name", CASES)
def test_layer_equals_the_naive_one_with_its_gradients(name, compute):
    settings, part = build(**CASES[name] | {"kernel": compute})
    if part.balance.selection_bias is not None:
        part.balance.selection_bias.copy_(torch.tensor([0.5, -0.5, 0.2, -0.2]))
    x = draw().requires_grad_()
    got, account = part(x)
    expected, chosen = naive(settings, part, x)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-11)
    load = torch.bincount(torch.tensor(chosen).flatten(), minlength=settings.num_experts)
    assert torch.equal(account.load, load)
    wanted = [x, *(p for p in part.parameters() if p.requires_grad)]
    gradient = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    ours = torch.autograd.grad(got, wanted, gradient)
    theirs = torch.autograd.grad(expected, wanted, gradient)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("compute", [kind_of(member) for member in members(Kernel)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_computations_agree_in_the_types_of_training(compute, dtype):
    def run(kind):
        _, part = build(kernel=kind, experts=[pack(width=16)])
        part = part.to(dtype)
        x = draw().to(dtype).requires_grad_()
        out, _ = part(x)
        out.square().sum().backward()
        return out.detach(), x.grad, part.experts[0].down.grad

    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 0.1, "atol": 1}
    for one, other in zip(run(compute), run("loop"), strict=True):
        torch.testing.assert_close(one, other, **tolerance)


@pytest.mark.parametrize("compute", [kind_of(member) for member in members(Kernel)])
def test_experts_without_tokens_get_zero_gradients(compute):
    _, part = build(kernel=compute, balance="bias", experts=[pack(), pack(count=2)])
    part.balance.selection_bias.copy_(torch.tensor([9.0, 9.0, 0, 0, 0, 0]))
    out, account = part(draw())
    out.sum().backward()
    assert account.load.tolist() == [14, 14, 0, 0, 0, 0]
    gradient = part.experts[0].up.grad
    assert gradient[:2].abs().amax((1, 2)).min() > 0
    assert gradient[2:].abs().max() == 0
    untouched = part.experts[1].up.grad
    assert untouched is None or untouched.abs().max() == 0


def test_loads_count_valid_tokens_only_and_padding_moves_no_loss():
    settings, part = build(balance={"kind": "auxiliary", "coefficient": 0.3},
                           router={"z_loss": 0.2})  # fmt: skip
    x = draw(2, 9)
    valid = torch.ones(2, 9, dtype=torch.bool)
    valid[0, 4:] = False
    _, whole = part(x, ForwardContext(valid=valid))
    alone = torch.cat((x[0, :4], x[1]))[None]
    _, without = part(alone)
    assert int(whole.load.sum()) == 13 * settings.experts_per_token
    assert torch.equal(whole.load, without.load)
    for name in ("auxiliary", "z", "entropy"):
        torch.testing.assert_close(getattr(whole, name), getattr(without, name))


def test_auxiliary_loss_and_z_loss_follow_their_formulas():
    settings, part = build(balance={"kind": "auxiliary", "coefficient": 0.3},
                           router={"z_loss": 0.2})  # fmt: skip
    x = draw()
    _, account = part(x)
    _, chosen = naive(settings, part, x)
    logits = x.flatten(0, 1) @ part.router.weight.T
    shares = logits.exp() / logits.exp().sum(-1, keepdim=True)
    expected = 0.0
    for e in range(4):
        fraction = sum(row.count(e) for row in chosen) / (len(chosen) * 2)
        expected = expected + 0.3 * 4 * fraction * shares[:, e].mean()
    torch.testing.assert_close(account.auxiliary, expected)
    torch.testing.assert_close(account.z, 0.2 * logits.exp().sum(-1).log().pow(2).mean())
    entropy = -(shares * shares.log()).sum(-1).mean()
    torch.testing.assert_close(account.entropy, entropy.detach())
    account.auxiliary.backward()
    assert part.router.weight.grad.abs().max() > 0, "the loss must reach the router"


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_uniform_routing_costs_exactly_the_coefficient(score):
    _, part = build(
        balance={"kind": "auxiliary", "coefficient": 0.25}, experts_per_token=1,
        router={"score": score},
    )  # fmt: skip
    with torch.no_grad():
        part.router.weight.copy_(torch.eye(4, WIDTH))
    x = torch.zeros(1, 4, WIDTH, dtype=torch.float64)
    x[0, torch.arange(4), torch.arange(4)] = 3.0  # each token prefers its own expert
    _, account = part(x)
    assert account.load.tolist() == [1, 1, 1, 1]
    assert account.auxiliary.item() == pytest.approx(0.25, abs=1e-12)


def test_bias_selects_but_never_weighs():
    _, part = build(balance="bias", experts_per_token=1, router={"score": "sigmoid"})
    x = draw()
    flat = x.flatten(0, 1)
    part.balance.selection_bias.copy_(torch.tensor([0.0, 100.0, 0.0, 0.0]))
    routing = part.router(flat, part.balance.selection_bias)
    assert (routing.indices == 1).all()
    expected = torch.sigmoid(flat @ part.router.weight[1])
    torch.testing.assert_close(routing.gates[:, 0], expected)


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


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="only 4 routed experts"):
        build(experts_per_token=5)
    with pytest.raises(ValueError, match="no gradient"):
        build(experts_per_token=1, router={"renormalise": True})


@pytest.mark.parametrize(
    ("experts", "width", "grouped"), [(8, 16, 0), (31, 16, 0), (32, 16, 2), (4, 384, 2)]
)
def test_the_automatic_computation_follows_its_stated_rule(experts, width, grouped, monkeypatch):
    calls = []
    original = F.grouped_mm

    def spy(*inputs, **options):
        calls.append(1)
        return original(*inputs, **options)

    monkeypatch.setattr(F, "grouped_mm", spy)
    body = {"kind": "mlp", "width": 8}
    settings = MixtureOfExperts.model_validate(
        {"experts": [{"mlp": body, "count": experts}], "experts_per_token": 1}
    )
    part = settings.build(width)
    for parameter in part.parameters():
        torch.nn.init.normal_(parameter)
    part(torch.randn(1, 2, width))
    assert len(calls) == grouped
    part(torch.randn(1, 1, width))
    assert len(calls) == grouped, "a lone token goes the gather path, whatever the sizes"
