"""Mixtral: Llama with routed SwiGLU experts in every layer, and a sliding window if wanted.

Jiang et al. 2024, arXiv:2401.04088: softmax over all experts, the best k, their shares brought to a
sum of one.
"""

from __future__ import annotations

from typing import Any

from coterie.exchange.huggingface.config import Config
from coterie.exchange.huggingface.families.common import (
    FUSED,
    end_rules,
    layer_rules,
    mixture_rules,
    read_attention,
    read_balance,
    read_stream,
    read_window,
    write_balance,
    write_stream,
)
from coterie.exchange.huggingface.family import Family
from coterie.exchange.huggingface.plain import Plain, swiglu
from coterie.exchange.huggingface.rope import read_rope
from coterie.exchange.huggingface.rules import ExpertNames, Rule
from coterie.model import DecoderSettings

_DEFAULTS = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": None, "hidden_act": "silu",
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
    "sliding_window": None, "attention_dropout": 0.0, "num_experts_per_tok": 2,
    "num_local_experts": 8, "router_aux_loss_coef": 0.001, "router_jitter_noise": 0.0,
}  # fmt: skip
_NUMBERED = ExpertNames("experts.{e}.w1.weight", "experts.{e}.w3.weight", "experts.{e}.w2.weight")


def _reads(config: Config) -> dict[str, Any]:
    return {
        **read_stream(config),
        "position": read_rope(config, theta=1_000_000.0),
        "attention": read_attention(config) | {"window": read_window(config)},
        "feedforward": {
            "kind": "moe",
            "experts": [
                {
                    "count": config.whole("num_local_experts"),
                    "body": swiglu(config.whole("intermediate_size")),
                }
            ],
            "experts_per_token": config.whole("num_experts_per_tok"),
            "router": {"score": "softmax", "select": "top_k", "renormalise": True},
            "balance": read_balance(config),
        },
    }


def _writes(plain: Plain) -> dict[str, Any]:
    mixture = plain.mixture
    return {
        **write_stream(plain),
        "intermediate_size": plain.expert_width,
        "sliding_window": plain.grouped.window,
        "num_experts_per_tok": mixture.experts_per_token,
        "num_local_experts": mixture.num_experts,
        **write_balance(mixture),
    }


def _limits(plain: Plain) -> list[str]:
    single = plain.mixture.experts_per_token == 1
    return ["one expert per token, whose gate Mixtral sets to 1"] if single else []


def _rules(settings: DecoderSettings) -> list[Rule]:
    rules = end_rules(settings)
    for layer, plan in enumerate(settings.plans()):
        own, foreign = f"blocks.{layer}", f"model.layers.{layer}"
        rules += layer_rules(own, foreign, plan.attention)
        older, newer = f"{foreign}.block_sparse_moe", f"{foreign}.mlp"
        rules += mixture_rules(
            f"{own}.feedforward",
            plan.feedforward,
            (f"{older}.gate.weight", f"{newer}.gate.weight"),
            (older, _NUMBERED),
            (newer, FUSED),
            (newer, _NUMBERED),
        )
    return rules


MIXTRAL = Family(
    model_type="mixtral",
    title="Mixtral",
    architecture="MixtralForCausalLM",
    prefix="model.",
    defaults=_DEFAULTS,
    reads=_reads,
    writes=_writes,
    rules=_rules,
    limits=_limits,
    aliases={"num_experts": "num_local_experts"},
)
