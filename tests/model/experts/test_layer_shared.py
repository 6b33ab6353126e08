"""The gate of shared experts."""

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


def test_the_shared_gate_weighs_the_shared_experts_sum():
    part, x = build(shared_experts=2, shared_gate=True), draw()
    plain = build(shared_experts=2)
    plain.load_state_dict({k: v for k, v in part.state_dict().items() if "shared_gate" not in k})
    shared = sum(expert(x) for expert in part.shared)
    routed = plain(x[None])[0][0] - shared
    gate = torch.sigmoid(x @ part.shared_gate.weight[0])[:, None]
    torch.testing.assert_close(part(x[None])[0][0], routed + gate * shared, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="needs shared experts"):
        build(shared_gate=True)
