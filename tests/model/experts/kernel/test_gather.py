"""Weights gathered per pair, the path for other devices, tried on the CPU."""

from __future__ import annotations

import pytest
import torch

from coterie.model.experts import MixtureOfExperts
from coterie.model.experts.kernel import gather

WIDTH = 8


PACKS = [
    {"mlp": {"kind": "gated", "width": 12, "bias": True}, "count": 3},
    {"mlp": "null", "count": 1},
    {"mlp": {"kind": "deep", "width": 4}, "count": 2},
]


NONE = 6  # the number of experts stands for no expert


SELECTIONS = {
    "usual": [[0, 4], [5, 1], [3, 2], [2, 0], [1, 5]] * 5,
    "empty experts": [[0, 5], [5, 0], [0, 5]] * 8,
    "null alone": [[3, NONE]] * 4,
    "drops": [[0, NONE], [NONE, NONE], [NONE, 5], [3, 1], [4, NONE]] * 5,
    "nobody": [[NONE, NONE]] * 3,
    "one token": [[5, 0]],
    "one token with one expert": [[2, NONE]],
    "no token": [],
}


def build(compute, packs=PACKS):
    settings = MixtureOfExperts.model_validate(
        {"experts": packs, "experts_per_token": 2, "kernel": compute}
    )
    part = settings.build(WIDTH).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    return part


def mix(part, x, indices, gates):
    packs = list(part.experts)
    kernel = part.kernel.chosen(packs, x, indices, part.dispatcher)
    return kernel.mix(packs, x, indices, gates, part.dispatcher, partial=True)


def run(compute, selection, packs=PACKS):
    part = build(compute, packs)
    indices = torch.tensor(selection, dtype=torch.int64).reshape(-1, 2)
    generator = torch.Generator().manual_seed(3)
    x, gates = (
        torch.randn(len(indices), size, generator=generator, dtype=torch.float64)
        for size in (WIDTH, 2)
    )
    gates.masked_fill_(indices == NONE, 0.0)
    leaves = [x.requires_grad_(), gates.requires_grad_(), *part.experts.parameters()]
    out = mix(part, x, indices, gates)
    wanted = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    gradients = torch.autograd.grad(out, leaves, wanted, allow_unused=True)
    gradients = [torch.zeros_like(leaf) if each is None else each
                 for leaf, each in zip(leaves, gradients, strict=True)]  # fmt: skip
    gradients[1] = gradients[1].masked_fill(indices == NONE, 0.0)  # of no consequence to anybody
    return out, gradients


@pytest.mark.parametrize("name", ["usual", "drops", "one token", "null alone"])
def test_gathered_weights_agree_too(name, monkeypatch):
    """The path for devices that should not be waited for, tried here on the CPU."""
    expected, expected_gradients = run("loop", SELECTIONS[name])
    monkeypatch.setattr(gather, "call_needed", gather.call_gathered)
    out, gradients = run("gather", SELECTIONS[name])
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-11)
    for one, other in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)
