"""The automatic kernel follows its stated rule."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from coterie.model.experts import MixtureOfExperts


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
