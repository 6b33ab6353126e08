"""Load and the router's losses follow their formulas; padding counts in none."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from coterie.model.context import ForwardContext
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
