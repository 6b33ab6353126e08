"""Glm4-MoE: grouped queries, partly turned, under the router of DeepSeek-V3.

GLM-4.5 Team 2025, arXiv:2508.06471.
"""

from __future__ import annotations

from typing import Any

from coterie.exchange.huggingface.config import Config
from coterie.exchange.huggingface.families.common import (
    end_rules,
    layer_rules,
    read_attention,
    read_stream,
    write_stream,
)
from coterie.exchange.huggingface.families.deepseek import (
    feedforward_rules,
    pairs_needed,
    read_layers,
    read_sigmoid_router,
    write_layers,
)
from coterie.exchange.huggingface.family import Family
from coterie.exchange.huggingface.plain import Plain
from coterie.exchange.huggingface.rope import read_rope
from coterie.exchange.huggingface.rules import Rule
from coterie.model import DecoderSettings

_DEFAULTS = {
    "vocab_size": 151552, "hidden_size": 4096, "intermediate_size": 10944, "num_hidden_layers": 46,
    "num_attention_heads": 96, "num_key_value_heads": 8, "head_dim": None, "hidden_act": "silu",
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
    "attention_bias": False, "attention_dropout": 0.0, "moe_intermediate_size": 1408,
    "num_experts_per_tok": 8, "n_shared_experts": 1, "n_routed_experts": 128,
    "routed_scaling_factor": 1.0, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
    "norm_topk_prob": True, "use_qk_norm": False, "partial_rotary_factor": 0.5,
    "num_nextn_predict_layers": 1,
}  # fmt: skip


def _reads(config: Config) -> dict[str, Any]:
    attention = read_attention(config)
    position = read_rope(config, partial=True)
    channels = attention["head_dim"]  # the other side rounds the turned ones down
    position["fraction"] = int(channels * position["fraction"]) / channels
    attention["bias"] = "qkv" if config.flag("attention_bias") else False
    if config.flag("use_qk_norm"):
        attention["query_key_norm"] = {"kind": "rms", "epsilon": config.number("rms_norm_eps")}
    return {
        **read_stream(config),
        "position": position,
        "attention": attention,
        **read_layers(config, read_sigmoid_router(config), {"kind": "bias"}),
    }


def _writes(plain: Plain) -> dict[str, Any]:
    written = write_stream(plain)
    fraction = {"partial_rotary_factor": plain.rotary.fraction}  # where it is silent, it is a half
    written["rope_parameters"] = written["rope_parameters"] | fraction
    return {
        **written,
        **fraction,
        **write_layers(plain),
        "attention_bias": bool(plain.grouped.bias),
        "use_qk_norm": plain.grouped.query_key_norm is not None,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "num_nextn_predict_layers": 0,
    }


def _rules(settings: DecoderSettings) -> list[Rule]:
    rules = end_rules(settings)
    for layer, plan in enumerate(settings.plans()):
        own, foreign = f"blocks.{layer}", f"model.layers.{layer}"
        rules += layer_rules(own, foreign, plan.attention)
        rules += feedforward_rules(
            f"{own}.feedforward", f"{foreign}.mlp", plan.feedforward, settings.width, biased=True
        )
    return rules


GLM4_MOE = Family(
    model_type="glm4_moe",
    title="Glm4-MoE",
    architecture="Glm4MoeForCausalLM",
    prefix="model.",
    defaults=_DEFAULTS,
    reads=_reads,
    writes=_writes,
    rules=_rules,
    limits=pairs_needed,
    ahead=True,
    aliases={"num_local_experts": "n_routed_experts", "num_mtp_layers": "num_nextn_predict_layers"},
)
