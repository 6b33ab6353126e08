"""The automatic kernel follows its stated rule."""

from __future__ import annotations

import pytest
import torch

from coterie.model.experts import MixtureOfExperts
from coterie.model.experts.kernel.grouped import Grouped


@pytest.mark.parametrize(
    ("experts", "width", "grouped"), [(8, 16, 0), (31, 16, 0), (32, 16, 1), (4, 384, 1)]
)
def test_the_automatic_computation_follows_its_stated_rule(experts, width, grouped, monkeypatch):
    calls = []
    original = Grouped.mix

    def spy(*inputs, **options):
        calls.append(1)
        return original(*inputs, **options)

    monkeypatch.setattr(Grouped, "mix", spy)
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
