"""OLMoE: routed SwiGLU experts in every layer, queries and keys normalised over their full width.

Muennighoff et al. 2024, arXiv:2409.02060.
"""

from __future__ import annotations

from typing import Any

from coterie.exchange.huggingface.config import Config
from coterie.exchange.huggingface.families.common import (
    FUSED,
    PER_EXPERT,
    end_rules,
    equal_heads,
    layer_rules,
    mixture_rules,
    read_attention,
    read_balance,
    read_stream,
    write_balance,
    write_stream,
)
from coterie.exchange.huggingface.family import Family
from coterie.exchange.huggingface.plain import Plain, swiglu
from coterie.exchange.huggingface.rope import read_rope
from coterie.exchange.huggingface.rules import Rule
from coterie.model import DecoderSettings

_DEFAULTS = {
    "vocab_size": 50304, "hidden_size": 2048, "intermediate_size": 2048, "num_hidden_layers": 16,
    "num_attention_heads": 16, "num_key_value_heads": None, "hidden_act": "silu",
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
    "attention_bias": False, "attention_dropout": 0.0, "clip_qkv": None, "num_experts_per_tok": 8,
    "num_experts": 64, "router_aux_loss_coef": 0.01, "norm_topk_prob": False,
}  # fmt: skip


def _reads(config: Config) -> dict[str, Any]:
    config.require("clip_qkv", None)
    norm = {"kind": "rms", "epsilon": config.number("rms_norm_eps")}
    attention = read_attention(config) | {
        "bias": config.flag("attention_bias"),
        "query_key_norm": norm,
        "query_key_norm_over": "all",
    }
    return {
        **read_stream(config),
        "position": read_rope(config),
        "attention": attention,
        "feedforward": {
            "kind": "moe",
            "experts": [
                {
                    "count": config.whole("num_experts"),
                    "body": swiglu(config.whole("intermediate_size")),
                }
            ],
            "experts_per_token": config.whole("num_experts_per_tok"),
            "router": {"renormalise": config.flag("norm_topk_prob")},
            "balance": read_balance(config),
        },
    }


def _writes(plain: Plain) -> dict[str, Any]:
    mixture = plain.mixture
    return {
        **write_stream(plain),
        "intermediate_size": plain.expert_width,
        "attention_bias": bool(plain.grouped.bias),
        "clip_qkv": None,
        "num_experts_per_tok": mixture.experts_per_token,
        "num_experts": mixture.num_experts,
        "norm_topk_prob": bool(mixture.router.renormalise),
        **write_balance(mixture),
    }


def _rules(settings: DecoderSettings) -> list[Rule]:
    rules = end_rules(settings)
    for layer, plan in enumerate(settings.plans()):
        own, foreign = f"blocks.{layer}", f"model.layers.{layer}"
        rules += layer_rules(own, foreign, plan.attention)
        rules += mixture_rules(
            f"{own}.feedforward",
            plan.feedforward,
            (f"{foreign}.mlp.gate.weight",),
            (f"{foreign}.mlp", PER_EXPERT),
            (f"{foreign}.mlp", FUSED),
        )
    return rules


OLMOE = Family(
    model_type="olmoe",
    title="OLMoE",
    architecture="OlmoeForCausalLM",
    prefix="model.",
    defaults=_DEFAULTS,
    reads=_reads,
    writes=_writes,
    rules=_rules,
    limits=equal_heads,
    aliases={"num_local_experts": "num_experts"},
)
