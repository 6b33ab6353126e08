"""Router noise: in training alone, from the global generator."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

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


NOISES = {
    "learned": {"kind": "learned"},
    "gaussian": {"kind": "gaussian", "std": 0.7},
    "jitter": {"kind": "jitter", "epsilon": 0.3},
}


@pytest.mark.parametrize("name", NOISES)
def test_noise_is_for_training_and_comes_from_the_global_generator(name):
    part, x = build(router={"noise": NOISES[name]}), draw()
    clean = x @ part.router.weight.T
    assert torch.equal(part.router.eval()(x).logits, clean)
    part.router.train()
    torch.manual_seed(3)
    noisy = part.router(x).logits
    torch.manual_seed(3)
    assert torch.equal(part.router(x).logits, noisy)
    assert not torch.equal(part.router(x).logits, noisy)
    torch.manual_seed(3)
    if name == "learned":
        spread = F.softplus(x @ part.router.noise.weight.T)
        expected = clean + torch.randn_like(clean) * spread
    elif name == "gaussian":
        expected = clean + 0.7 * torch.randn_like(clean)
    else:
        expected = (x * torch.empty_like(x).uniform_(0.7, 1.3)) @ part.router.weight.T
    torch.testing.assert_close(noisy, expected, rtol=0, atol=1e-12)
    routing = part.router(x)
    best = routing.scores.topk(2).indices
    assert torch.equal(routing.indices, best), "noise takes part in the selection"


def test_learned_noise_starts_at_zero_weights_and_is_learned():
    part = build(router={"noise": "learned"}).train()
    assert part.router.noise.initial_std == {"weight": 0.0}
    part(draw()[None])[0].square().sum().backward()
    assert part.router.noise.weight.grad.abs().max() > 0
