"""Rates that differ by role, layer and name move parameters as torch's own groups do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from coterie.foundation.errors import SettingsError
from coterie.foundation.layers import Layer, overrides_layer
from coterie.presets import preset_layers
from coterie.train.given import require_roles, run_settings
from coterie.train.offload import build_optimizer
from coterie.train.optimizer import Adafactor, AdamW, Muon, RoleParameter
from coterie.train.roles import role_parameters
from coterie.train.settings import TrainSettings

SHAPES = {"embedding.weight": ("embedding", (9, 4), 3), "blocks.0.up": ("matrix", (4, 4), 2),
          "blocks.1.up": ("matrix", (4, 4), 1), "blocks.1.bias": ("bias", (4,), 1),
          "norm.weight": ("norm", (4,), 0)}  # fmt: skip
FACTORS = {"layer_decay": 0.5, "rate_multipliers": {"blocks.1.*": 3.0, "*.bias": 0.0}}
EXPECTED = {"embedding.weight": 0.125, "blocks.0.up": 0.25, "blocks.1.up": 1.5,
            "blocks.1.bias": 0.0, "norm.weight": 1.0}  # fmt: skip


def parameters():
    drawn = torch.Generator().manual_seed(1)
    return [
        RoleParameter(name, role, nn.Parameter(torch.randn(shape, generator=drawn)), above)
        for name, (role, shape, above) in SHAPES.items()
    ]


def take_steps(ours, move, steps=4):
    drawn = torch.Generator().manual_seed(2)
    for step in range(steps):
        for each in ours:
            each.tensor.grad = torch.randn(each.tensor.shape, generator=drawn)
        move(step)


def test_adamw_with_factors_is_torchs_with_a_group_for_each_parameter():
    ours, theirs = parameters(), parameters()
    settings = AdamW(learning_rate=0.1, learning_rates={"norm": 0.2}, weight_decay=0.0, **FACTORS)
    optimizer = settings.build(ours)
    take_steps(ours, lambda step: optimizer.step(step, 0.5))
    rates = {each.name: 0.2 if each.role == "norm" else 0.1 for each in theirs}
    groups = [
        {"params": [each.tensor], "lr": 0.5 * rates[each.name] * EXPECTED[each.name]}
        for each in theirs
    ]
    plain = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0, fused=True)
    take_steps(theirs, lambda step: plain.step())
    for one, other, begun in zip(ours, theirs, parameters(), strict=True):
        torch.testing.assert_close(one.tensor, other.tensor, rtol=1e-6, atol=1e-7)
        assert torch.equal(one.tensor, begun.tensor) is (one.name == "blocks.1.bias")


@pytest.mark.parametrize("kind", [Adafactor, Muon])
def test_one_step_of_the_others_goes_as_far_as_the_factors_say(kind):
    def gone(**factors):
        ours = parameters()
        optimizer = kind(learning_rate=0.05, **factors).build(ours)
        take_steps(ours, lambda step: optimizer.step(step, 1.0), steps=1)
        pairs = zip(ours, parameters(), strict=True)
        return [now.tensor.detach() - begun.tensor.detach() for now, begun in pairs]

    for factor, far, plain in zip(EXPECTED.values(), gone(**FACTORS), gone(), strict=True):
        torch.testing.assert_close(far, factor * plain, rtol=2e-5, atol=1e-6)


def test_a_pattern_that_matches_no_name_is_refused_with_the_nearest(tiny):
    ours = role_parameters(tiny(model={"vocab_size": 30}).model.build())
    for place in ("", "others."):
        named = {"rate_multipliers": {"bloks.0.*": 0.1}}
        given = {"kind": "muon", **({"others": named} if place else named)}
        with pytest.raises(SettingsError, match=r"matches “bloks\.0\.\*”.*blocks\.0"):
            build_optimizer(TrainSettings(optimizer=given), ours)


def test_layers_are_counted_from_the_head_downwards(tiny):
    ours = role_parameters(tiny(model={"vocab_size": 30, "layers": 3}).model.build())
    above = {each.name.rsplit(".", 1)[0].split(".attention")[0]: each.above for each in ours}
    assert [above[name] for name in ("embedding", "blocks.0", "blocks.2", "norm")] == [4, 3, 1, 0]


def test_a_role_that_somebody_named_must_be_there_and_a_presets_need_not():
    plain = preset_layers("quickstart", "tiny")
    bare = Layer("file", {"model": {"embedding": {"kind": "full"}}})
    require_roles(run_settings([*plain, bare]))  # the preset names the role of a table
    key = "train.optimizer.others"
    require_roles(run_settings([*plain, overrides_layer([f"{key}.learning_rates.table=0.1"])]))
    for word in (f"{key}.learning_rates.table=0.1", f"{key}.decayed=[table, norm]"):
        with pytest.raises(SettingsError, match="no parameters of the role “table”, which command"):
            require_roles(run_settings([*plain, bare, overrides_layer([word])]))
