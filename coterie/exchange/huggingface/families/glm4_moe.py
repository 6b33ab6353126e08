"""Glm4-MoE: grouped queries, partly rotated, under the router of DeepSeek-V3.

GLM-4.5 Team 2025, arXiv:2508.06471.
"""

from typing import Any

from coterie.exchange.core.canonical import Canonical
from coterie.exchange.huggingface.config import Config
from coterie.exchange.huggingface.families import common, deepseek
from coterie.exchange.huggingface.family import Family
from coterie.exchange.huggingface.rope import read_rope

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
    attention = common.read_attention(config)
    position = read_rope(config, partial=True)
    channels = attention["head_dim"]  # transformers rounds the rotated ones down
    position["fraction"] = int(channels * position["fraction"]) / channels
    attention["bias"] = "qkv" if config.flag("attention_bias") else False
    if config.flag("use_qk_norm"):
        attention["query_key_norm"] = {"kind": "rms", "epsilon": config.number("rms_norm_eps")}
    return {
        **common.read_stream(config),
        "position": position,
        "attention": attention,
        **deepseek.read_layers(config, deepseek.read_sigmoid_router(config), "bias"),
    }


def _writes(model: Canonical) -> dict[str, Any]:
    written = common.write_stream(model)
    fraction = {"partial_rotary_factor": model.rotary.fraction}  # the default is 0.5
    written["rope_parameters"] = written["rope_parameters"] | fraction
    return {
        **written,
        **fraction,
        **deepseek.write_layers(model),
        "attention_bias": bool(model.grouped.bias),
        "use_qk_norm": model.grouped.query_key_norm is not None,
        **deepseek.write_sigmoid_router(model),
    }


GLM4_MOE = Family(
    name="glm4_moe", title="Glm4-MoE", architecture="Glm4MoeForCausalLM", defaults=_DEFAULTS,
    reads=_reads, writes=_writes, tensor_map=deepseek.tensor_map, limits=deepseek.pairs_needed,
    mtp=deepseek.MODULES,
    aliases={"num_local_experts": "n_routed_experts", "num_mtp_layers": "num_nextn_predict_layers"},
)  # fmt: skip
