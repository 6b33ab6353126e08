"""Packs of deep, wide, hybrid and null experts under one router."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from coterie.foundation.settings import kind_of, members
from coterie.model.experts import Kernel, MixtureOfExperts

WIDTH = 6


COMPUTES = [kind_of(member) for member in members(Kernel)]


def fill(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    return module.double()


def draw(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, WIDTH, generator=generator, dtype=torch.float64)


def mixture(answer="zero", **changes):
    packs = [
        {"mlp": {"kind": "null", "output": answer}, "count": 2},
        {"mlp": {"kind": "deep", "width": 8}, "count": 1},
        {"mlp": {"kind": "wide", "width": 12}, "count": 1},
        {"mlp": {"kind": "hybrid", "width": 8}, "count": 2},
    ]
    return MixtureOfExperts.model_validate({"experts": packs, "experts_per_token": 2} | changes)


@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize("answer", ["zero", "copy"])
def test_unequal_experts_work_under_one_router(compute, answer):
    settings = mixture(answer, kernel=compute, shared_experts=1)
    settings.check(WIDTH)
    part = fill(settings.build(WIDTH))
    x = draw(2, 9)
    got, account = part(x)
    flat = x.flatten(0, 1)
    routing = part.router(flat)
    expected = part.shared[0](flat)
    _, deep, wide, hybrid = part.experts
    for e in range(6):
        gate = (routing.gates * (routing.indices == e)).sum(-1, keepdim=True)
        if e < 2:
            answered = flat if answer == "copy" else 0 * flat
        else:
            pack, index = ((deep, 0), (wide, 0), (hybrid, 0), (hybrid, 1))[e - 2]
            own = tuple(None if w is None else w[index] for w in pack.weights())
            answered = pack.run(flat, own, F.linear)
        expected = expected + gate * answered
    torch.testing.assert_close(got.flatten(0, 1), expected, rtol=0, atol=1e-12)
    assert (account.load > 0).all()


def test_null_experts_lower_the_active_count_and_cannot_stand_alone():
    with_nulls = mixture().counts(WIDTH)
    packs = [pack.counts("", WIDTH).parameters for pack in mixture().experts]
    router = 6 * WIDTH
    assert packs[0] == 0
    assert with_nulls.parameters == sum(packs) + router
    assert with_nulls.active == sum(round(size * 2 / 6) for size in packs) + router
    alone = {"experts": [{"mlp": "null", "count": 4}], "experts_per_token": 2}
    with pytest.raises(ValueError, match="must compute something"):
        MixtureOfExperts.model_validate(alone).check(WIDTH)


def test_a_shared_expert_is_never_null():
    assert mixture(shared_experts=1).shared().kind == "deep"
    with pytest.raises(ValueError, match="null"):
        mixture(shared_experts=1, shared_mlp={"kind": "null"})
