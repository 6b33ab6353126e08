"""No token goes to an excluded expert; the selection bias still acts."""

from __future__ import annotations

import pytest
import torch

from coterie.model.experts import MixtureOfExperts
from coterie.model.experts.capacity import draw_excluded

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


SELECTS = {
    "top_k": "top_k",
    "dynamic": {"kind": "dynamic", "mass": 1.0},
    "group_limited": {"kind": "group_limited", "groups": 3, "groups_per_token": 1},
}


@pytest.mark.parametrize("name", SELECTS)
@pytest.mark.parametrize("balance", ["none", "bias"])
def test_no_token_goes_to_an_expert_that_is_excluded(name, balance):
    part = build(expert_dropout=0.4, router={"select": SELECTS[name]}, balance=balance)
    x = draw(120)
    seen = set()
    for seed in range(8):
        torch.manual_seed(seed)
        excluded = draw_excluded(EXPERTS, 2, 0.4, x.device)
        torch.manual_seed(seed)
        out, account = part.train()(x[None])
        assert account.load[excluded].sum() == 0
        assert torch.isfinite(out).all()
        total = int(account.load.sum())
        assert total == 240 if name != "group_limited" else 120 <= total <= 240
        seen.add(tuple(excluded.tolist()))
    assert len(seen) > 2
    assert (part.eval()(x[None])[1].load > 0).all(), "evaluation uses all experts"


@pytest.mark.parametrize("name", SELECTS)
def test_a_bias_still_steers_when_experts_sit_out(name):
    part, x = build(router={"score": "sigmoid", "select": SELECTS[name]}, balance="bias"), draw()
    excluded = torch.tensor([False, True, False, False, True, False])
    bias = torch.tensor([0.0, 20.0, 0.0, 10.0, 0.0, 0.0])
    routing = part.router(x, bias, excluded_experts=excluded)
    assert (routing.indices[:, 0] == 3).all(), "present and preferred"
    assert not torch.isin(routing.indices, torch.tensor([1, 4])).any()
    gates = torch.sigmoid(x @ part.router.weight[3])
    others = routing.gates[:, 1:].sum(-1)
    if part.router.renormalise:
        torch.testing.assert_close(routing.gates.sum(-1), torch.ones(40).double())
    else:
        torch.testing.assert_close(routing.gates[:, 0], gates)
    assert (others >= 0).all()


@pytest.mark.parametrize("name", ["top_k", "dynamic"])
def test_where_too_few_are_left_a_place_stays_empty(name):
    part, x = build(router={"select": SELECTS[name], "renormalise": False}), draw()
    excluded = torch.tensor([True, True, False, True, True, True])
    routing = part.router(x, excluded_experts=excluded)
    assert (routing.indices == torch.tensor([2, EXPERTS])).all()
    assert (routing.gates[:, 1] == 0).all()
    torch.testing.assert_close(routing.gates[:, 0], routing.scores[:, 2])


def test_a_selection_made_before_is_taken_as_it_is():
    part, x = build(expert_dropout=0.4, balance="bias"), draw()
    excluded = torch.tensor([True, False, False, False, False, True])
    first = part.router(x, excluded_experts=excluded)
    again = part.router(x, torch.tensor([9.0, 0, 0, 0, 0, 0]), first.indices, ~excluded)
    assert torch.equal(again.indices, first.indices)
    torch.testing.assert_close(again.gates, first.gates)
