"""The routed layer against a naive one, token by token, in float64."""

from __future__ import annotations

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


KERNELS = [kind_of(member) for member in members(Kernel)]

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


@pytest.mark.parametrize(
    ("name", "kernel"),
    [*((name, "auto") for name in CASES), *(("two packs", kind) for kind in KERNELS)],
)
def test_layer_equals_the_naive_one_with_its_gradients(name, kernel):
    settings, part = build(**CASES[name] | {"kernel": kernel})
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


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_agree_in_the_types_of_training(kernel, dtype):
    def run(kind):
        _, part = build(kernel=kind, experts=[pack(width=16)])
        part = part.to(dtype)
        x = draw().to(dtype).requires_grad_()
        out, _ = part(x)
        out.square().sum().backward()
        return out.detach(), x.grad, part.experts[0].down.grad

    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 0.1, "atol": 1}
    for one, other in zip(run(kernel), run("loop"), strict=True):
        torch.testing.assert_close(one, other, **tolerance)


@pytest.mark.parametrize("kernel", KERNELS)
def test_experts_without_tokens_get_zero_gradients(kernel):
    _, part = build(kernel=kernel, balance="bias", experts=[pack(), pack(count=2)])
    part.balance.selection_bias.copy_(torch.tensor([9.0, 9.0, 0, 0, 0, 0]))
    out, account = part(draw())
    out.sum().backward()
    assert account.load.tolist() == [14, 14, 0, 0, 0, 0]
    gradient = part.experts[0].up.grad
    assert gradient[:2].abs().amax((1, 2)).min() > 0
    assert gradient[2:].abs().max() == 0
    untouched = part.experts[1].up.grad
    assert untouched is None or untouched.abs().max() == 0


def test_what_routers_account_for_can_be_left_out():
    (_, part), x = build(), draw()
    plain, stats = part(x)
    same, nothing = part(x, ForwardContext(router_stats=False))
    assert torch.equal(same, plain)
    assert stats is not None
    assert nothing is None


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="only 4 routed experts"):
        build(experts_per_token=5)
    with pytest.raises(ValueError, match="no gradient"):
        build(experts_per_token=1, router={"renormalise": True})
