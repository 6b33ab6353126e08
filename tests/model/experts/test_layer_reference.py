"""Routed layers of published models: the same weights give the same answers as `transformers`.

Their routers compute in float32, so outputs are compared in float32 and selections exactly.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from coterie.model.experts import MixtureOfExperts

WIDTH, HIDDEN, EXPERTS, TOP = 16, 12, 8, 3
GROUPED = {"kind": "group_limited", "groups": 4, "groups_per_token": 2}
COMMON = {
    "hidden_size": WIDTH, "moe_intermediate_size": HIDDEN, "num_experts_per_tok": TOP,
    "hidden_act": "silu", "num_attention_heads": 2, "vocab_size": 11, "num_hidden_layers": 1,
}  # fmt: skip
DEEPSEEK = COMMON | {"n_routed_experts": EXPERTS, "n_shared_experts": 2, "n_group": 4,
                     "topk_group": 2, "routed_scaling_factor": 1.7}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A foreign layer and our settings for it."""

    module: str
    names: tuple[str, str]  # configuration, layer
    config: dict[str, Any]
    ours: dict[str, Any] = field(default_factory=dict)


CASES = {
    "mixtral": Case(
        "mixtral", ("MixtralConfig", "MixtralSparseMoeBlock"),
        COMMON | {"intermediate_size": HIDDEN, "num_local_experts": EXPERTS},
    ),
    **{
        f"{name} {'normalised' if norm else 'plain'}": Case(
            name, names,
            COMMON | {"num_experts": EXPERTS, "norm_topk_prob": norm, "intermediate_size": HIDDEN,
                      "shared_expert_intermediate_size": 20},
            {"router": {"renormalise": norm}} | shared,
        )
        for norm in (True, False)
        for name, names, shared in (
            ("olmoe", ("OlmoeConfig", "OlmoeSparseMoeBlock"), {}),
            ("qwen3_moe", ("Qwen3MoeConfig", "Qwen3MoeSparseMoeBlock"), {}),
            ("qwen2_moe", ("Qwen2MoeConfig", "Qwen2MoeSparseMoeBlock"),
             {"shared_experts": 1, "shared_gate": True,
              "shared_mlp": {"kind": "gated", "width": 20}}),
        )
    },
    "deepseek_v2 greedy": Case(
        "deepseek_v2", ("DeepseekV2Config", "DeepseekV2Moe"),
        DEEPSEEK | {"topk_method": "greedy"},
        {"router": {"renormalise": False, "scale": 1.7}},
    ),
    "deepseek_v2 groups": Case(
        "deepseek_v2", ("DeepseekV2Config", "DeepseekV2Moe"),
        DEEPSEEK | {"topk_method": "group_limited_greedy"},
        {"router": {"renormalise": False, "scale": 1.7,
                    "select": GROUPED | {"group_score": "max"}}},
    ),
    **{
        f"{name} {'normalised' if norm else 'plain'}": Case(
            name, names, DEEPSEEK | {"norm_topk_prob": norm},
            {"router": {"score": "sigmoid", "renormalise": norm, "scale": 1.7, "select": GROUPED},
             "balance": "bias"},
        )
        for norm in (True, False)
        for name, names in (
            ("deepseek_v3", ("DeepseekV3Config", "DeepseekV3MoE")),
            ("glm4_moe", ("Glm4MoeConfig", "Glm4MoeMoE")),
        )
    },
}  # fmt: skip


def foreign(case):
    package = f"transformers.models.{case.module}"
    configuration = getattr(importlib.import_module(f"{package}.configuration_{case.module}"),
                            case.names[0])(**case.config)  # fmt: skip
    modelling = importlib.import_module(f"{package}.modeling_{case.module}")
    layer = getattr(modelling, case.names[1])(configuration).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in [*layer.named_parameters(), *layer.named_buffers()]:
            spread = 0.2 if "bias" in name else 0.5
            value.normal_(0, spread, generator=generator)
    return layer


@torch.no_grad()
def copy_weights(theirs, part):
    """Take a foreign layer's weights; its gate and up matrices are packed one above the other."""
    state = {name.replace("shared_experts", "shared_expert"): value
             for name, value in theirs.state_dict().items()}  # fmt: skip
    part.router.weight.copy_(state["gate.weight"])
    gate, up = state["experts.gate_up_proj"].chunk(2, dim=1)
    for name, value in (("gate", gate), ("up", up), ("down", state["experts.down_proj"])):
        getattr(part.experts[0], name).copy_(value)
    if part.balance.selection_bias is not None:
        part.balance.selection_bias.copy_(state["gate.e_score_correction_bias"])
    if part.shared_gate is not None:
        part.shared_gate.weight.copy_(state["shared_expert_gate.weight"])
    width = state["shared_expert.gate_proj.weight"].shape[0] if part.shared else 0
    for number, shared in enumerate(part.shared):
        own = slice(number * width // len(part.shared), (number + 1) * width // len(part.shared))
        shared.gate.copy_(state["shared_expert.gate_proj.weight"][own])
        shared.up.copy_(state["shared_expert.up_proj.weight"][own])
        shared.down.copy_(state["shared_expert.down_proj.weight"][:, own])


def ours(case, **changes):
    shared = {"shared_experts": 2} if case.config.get("n_shared_experts") else {}
    settings = MixtureOfExperts.model_validate({
        "experts": [{"mlp": {"kind": "gated", "width": HIDDEN}, "count": EXPERTS}],
        "experts_per_token": TOP, "kernel": "loop",
    } | shared | case.ours | changes)  # fmt: skip
    settings.check(WIDTH)
    return settings.build(WIDTH).eval()


@pytest.mark.parametrize("name", CASES)
def test_the_layer_answers_as_transformers_does(name):
    case = CASES[name]
    theirs, part = foreign(case), ours(case)
    copy_weights(theirs, part)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 40, WIDTH, generator=generator)
    with torch.no_grad():
        expected = theirs(x.clone())
        got, _ = part(x)
        _, weights, indices = theirs.gate(x.clone())
        routing = part.router(x.flatten(0, 1), part.balance.selection_bias)
    order = indices.argsort(-1)
    own_order = routing.indices.argsort(-1)
    assert torch.equal(indices.gather(-1, order), routing.indices.gather(-1, own_order))
    torch.testing.assert_close(
        routing.gates.gather(-1, own_order), weights.gather(-1, order), rtol=0, atol=1e-6
    )
    assert routing.indices.unique().numel() == EXPERTS, "all experts take part in the comparison"
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_setting_would_have_been_seen(name):
    case = CASES[name]
    theirs = foreign(case)
    router = dict(case.ours.get("router", {}))
    router["renormalise"] = not router.get("renormalise", True)
    part = ours(case, router=router)
    copy_weights(theirs, part)
    x = torch.randn(1, 9, WIDTH, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert (part(x)[0] - theirs(x.clone())).abs().max() > 1e-3
