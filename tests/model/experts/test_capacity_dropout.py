"""Expert dropout excludes whole experts, but never too many."""

from __future__ import annotations

import pytest
import torch

from coterie.model.experts.capacity import draw_excluded


def test_expert_dropout_leaves_out_whole_experts_but_never_too_many():
    torch.manual_seed(0)
    drawn = torch.stack([draw_excluded(6, 2, 0.5, torch.device("cpu")) for _ in range(2000)])
    remaining = (~drawn).sum(-1)
    assert int(remaining.min()) == 2
    usual = drawn[remaining > 2].double().mean(0)
    assert (usual.max() - usual.min()) < 0.08, "no expert is left out more than another"
    rare = torch.stack([draw_excluded(6, 2, 0.1, torch.device("cpu")) for _ in range(4000)])
    assert float(rare.double().mean()) == pytest.approx(0.1, abs=0.01)
