"""Group-limited selection against a naive one."""

from __future__ import annotations

import pytest
import torch

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


@pytest.mark.parametrize(("group_score", "counted"), [("max", 1), ("top_two_sum", 2)])
@pytest.mark.parametrize("biased", [False, True])
def test_group_limited_uses_the_best_groups_alone(group_score, counted, biased):
    select = {"kind": "group_limited", "groups": 3, "groups_per_token": 2,
              "group_score": group_score}  # fmt: skip
    part = build(
        experts_per_token=3, router={"score": "sigmoid", "select": select},
        balance="bias" if biased else "none",
    )  # fmt: skip
    bias = torch.zeros(EXPERTS)
    if biased:
        bias = torch.tensor([0.3, -0.2, 0.1, 0.0, -0.4, 0.2])
        part.balance.selection_bias.copy_(bias)
    x = draw()
    routing = part.router(x, part.balance.selection_bias)
    scores = torch.sigmoid(x @ part.router.weight.T)
    for token in range(len(x)):
        ranked = (scores[token] + bias).tolist()
        groups = [ranked[2 * g : 2 * g + 2] for g in range(3)]
        best = sorted(range(3), key=lambda g: -sum(sorted(groups[g])[-counted:]))[:2]
        allowed = [2 * g + i for g in best for i in range(2)]
        expected = sorted(allowed, key=lambda e: -ranked[e])[:3]
        assert routing.indices[token].tolist() == expected
        gates = scores[token, expected]
        torch.testing.assert_close(routing.gates[token], gates / gates.sum())


@pytest.mark.parametrize(
    ("select", "problem"),
    [
        ({"groups": 4, "groups_per_token": 1}, "cannot be cut into 4"),
        ({"groups": 2, "groups_per_token": 3}, "only 2 groups"),
        ({"groups": 6, "groups_per_token": 6}, "two experts or more"),
        ({"groups": 6, "groups_per_token": 1, "group_score": "max"}, "hold 1 experts"),
    ],
)
def test_impossible_groups_are_refused(select, problem):
    with pytest.raises(ValueError, match=problem):
        build(router={"select": {"kind": "group_limited"} | select})
