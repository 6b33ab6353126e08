"""Dynamic top-k against a naive one; its entropy regulariser."""

from __future__ import annotations

import pytest
import torch

from coterie.model.context import ForwardContext
from coterie.model.experts import MixtureOfExperts

WIDTH, EXPERTS = 8, 6


def build(**changes):
    pack = {"mlp": {"kind": "mlp", "width": 4}, "count": EXPERTS}
    settings = MixtureOfExperts.model_validate(
        {"experts": [pack], "experts_per_token": 2} | changes
    )
    settings.check(WIDTH)
    part = settings.build(WIDTH).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.normal_(0, 0.6, generator=generator)
    return part


def draw(tokens=40, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tokens, WIDTH, generator=generator, dtype=torch.float64)


def naive_dynamic(probabilities, mass, most):
    chosen, gathered = [], 0.0
    for e in sorted(range(len(probabilities)), key=lambda e: -probabilities[e]):
        if chosen and (gathered >= mass or len(chosen) == most):
            break
        chosen.append(e)
        gathered += probabilities[e]
    return chosen


@pytest.mark.parametrize("mass", [0.05, 0.4, 0.7, 1.0])
@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_dynamic_takes_the_fewest_experts_that_gather_the_mass(mass, score):
    part = build(
        experts_per_token=4, router={"score": score, "select": {"kind": "dynamic", "mass": mass}}
    )
    x = draw() * 2
    routing = part.router(x)
    logits = x @ part.router.weight.T
    scores = logits.softmax(-1) if score == "softmax" else torch.sigmoid(logits)
    shares = scores / scores.sum(-1, keepdim=True)
    for token in range(len(x)):
        expected = naive_dynamic(shares[token].tolist(), mass, 4)
        row = routing.indices[token].tolist()
        assert row == expected + [EXPERTS] * (4 - len(expected))
        gates = [float(scores[token, e].detach()) for e in expected] + [0.0] * (4 - len(expected))
        assert routing.gates[token].tolist() == pytest.approx(gates)
    sizes = (routing.indices < EXPERTS).sum(-1)
    if mass == 0.05:
        assert (sizes == 1).all()
    if mass == 1.0:
        assert (sizes == 4).all(), "bounded by experts_per_token"
    _, account = part(x[None])
    assert float(account.experts_per_token) == pytest.approx(float(sizes.double().mean()))


def test_the_entropy_regulariser_is_the_mean_entropy_and_reaches_the_router():
    select = {"kind": "dynamic", "mass": 0.5, "entropy": 0.3}
    part, x = build(router={"select": select}), draw(12)
    valid = torch.ones(2, 6, dtype=torch.bool)
    valid[1, 3:] = False
    _, account = part(x.view(2, 6, WIDTH), ForwardContext(valid=valid))
    p = (x @ part.router.weight.T).softmax(-1)[valid.flatten()]
    torch.testing.assert_close(account.entropy_term, -0.3 * (p * p.log()).sum(-1).mean())
    account.entropy_term.backward()
    assert part.router.weight.grad.abs().max() > 0
    assert build()(x[None])[1].entropy_term.item() == 0.0


def test_the_entropy_regulariser_survives_probabilities_that_underflow():
    part = build(router={"select": {"kind": "dynamic", "entropy": 0.3}}).float()
    _, account = part(1e5 * draw(5).float()[None])
    account.entropy_term.backward()
    assert torch.isfinite(part.router.weight.grad).all()


def test_bounds_that_disagree_are_refused():
    with pytest.raises(ValueError, match="the same bound"):
        build(router={"select": {"kind": "dynamic", "most": 3}})
    assert build(router={"select": {"kind": "dynamic", "most": 2}}).router.selector.mass == 0.4
