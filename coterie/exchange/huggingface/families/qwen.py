"""What Qwen2-MoE and Qwen3-MoE share: which layers have experts, and the table of tensors.

A layer has experts unless `mlp_only_layers` names it or its number, from one, is no multiple of
`decoder_sparse_step`.
"""

from __future__ import annotations

from typing import Any

from coterie.exchange.huggingface.config import Config
from coterie.exchange.huggingface.families.common import (
    FUSED,
    PER_EXPERT,
    end_rules,
    gated_rules,
    layer_rules,
    mixture_rules,
    read_balance,
    write_balance,
)
from coterie.exchange.huggingface.plain import Plain, swiglu
from coterie.exchange.huggingface.rules import Rule, same
from coterie.model import DecoderSettings
from coterie.model.experts import MixtureOfExperts

DEFAULTS = {
    "vocab_size": 151936, "hidden_size": 2048, "num_hidden_layers": 24, "hidden_act": "silu",
    "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
    "use_sliding_window": False, "sliding_window": 4096, "attention_dropout": 0.0,
    "decoder_sparse_step": 1, "norm_topk_prob": False, "router_aux_loss_coef": 0.001,
    "mlp_only_layers": None,
}  # fmt: skip


def read_labels(config: Config) -> list[str]:
    """Return for each layer whether it is `moe` or `dense`."""
    step = config.whole("decoder_sparse_step")
    dense = config.raw("mlp_only_layers") or []
    if not isinstance(dense, list) or not all(isinstance(each, int) for each in dense):
        config.refuse(f"mlp_only_layers is {dense!r}; it must be a list of layers")
        dense = []
    experts = config.whole("num_experts", least=0)
    layers = range(config.whole("num_hidden_layers"))
    routed = (experts and each not in dense and (each + 1) % step == 0 for each in layers)
    return ["moe" if each else "dense" for each in routed]


def read_feedforward(config: Config) -> dict[str, dict[str, Any]]:
    """Return the settings of routed and of dense layers."""
    return {
        "dense": {"kind": "dense", "body": swiglu(config.whole("intermediate_size"))},
        "moe": {
            "kind": "moe",
            "experts": [
                {
                    "count": max(config.whole("num_experts", least=0), 1),
                    "body": swiglu(config.whole("moe_intermediate_size")),
                }
            ],
            "experts_per_token": config.whole("num_experts_per_tok"),
            "router": {"renormalise": config.flag("norm_topk_prob")},
            "balance": read_balance(config),
        },
    }


def write_feedforward(plain: Plain) -> dict[str, Any]:
    """Return what a configuration says of routed and of dense layers."""
    mixture = plain.mixture
    return {
        "intermediate_size": plain.dense_width or plain.expert_width,
        "moe_intermediate_size": plain.expert_width,
        "num_experts_per_tok": mixture.experts_per_token,
        "num_experts": mixture.num_experts,
        "norm_topk_prob": bool(mixture.router.renormalise),
        "decoder_sparse_step": 1,
        "mlp_only_layers": [i for i, routed in enumerate(plain.is_routed) if not routed],
        **write_balance(mixture),
    }


def rules(settings: DecoderSettings) -> list[Rule]:
    """Return the table of tensors."""
    found = end_rules(settings)
    for layer, plan in enumerate(settings.plans()):
        own, foreign = f"blocks.{layer}", f"model.layers.{layer}"
        found += layer_rules(own, foreign, plan.attention)
        own, foreign, mixture = f"{own}.feedforward", f"{foreign}.mlp", plan.feedforward
        if not isinstance(mixture, MixtureOfExperts):
            found += gated_rules(f"{own}.body", foreign)
            continue
        layouts = ((foreign, PER_EXPERT), (foreign, FUSED))
        found += mixture_rules(own, mixture, (f"{foreign}.gate.weight",), *layouts)
        if mixture.shared_experts:
            found += gated_rules(f"{own}.shared.0", f"{foreign}.shared_expert")
            found.append(same(f"{own}.shared_gate.weight", f"{foreign}.shared_expert_gate.weight"))
    return found
