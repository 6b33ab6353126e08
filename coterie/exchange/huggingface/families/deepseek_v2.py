"""DeepSeek-V2: multi-head latent attention, softmax scores, shared experts, optional groups.

DeepSeek-AI 2024, arXiv:2405.04434. Rotary pairs are interleaved.
"""

from typing import Any

from coterie.exchange.core.canonical import Canonical
from coterie.exchange.huggingface.config import Config
from coterie.exchange.huggingface.families import common, deepseek
from coterie.exchange.huggingface.family import Family
from coterie.exchange.huggingface.rope import read_rope
from coterie.model.experts.select import GroupLimited

_DEFAULTS = {
    "vocab_size": 102400, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": None, "hidden_act": "silu",
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
    "attention_bias": False, "attention_dropout": 0.0, "mlp_bias": False,
    "first_k_dense_replace": 0, "kv_lora_rank": 512, "q_lora_rank": 1536, "n_group": None,
    "n_routed_experts": 64, "n_shared_experts": 2, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
    "routed_scaling_factor": 1.0, "topk_group": None, "topk_method": "greedy",
    "norm_topk_prob": False, "v_head_dim": 128, "num_experts_per_tok": None,
    "moe_intermediate_size": 1407, "head_dim": None, "qk_head_dim": None,
}  # fmt: skip


def _reads(config: Config) -> dict[str, Any]:
    config.require("scoring_func", "softmax", None)
    config.require("norm_topk_prob", False, None)
    config.require("topk_method", "greedy", "group_limited_greedy")
    limited = config.raw("topk_method") == "group_limited_greedy"
    router = {
        "score": "softmax",
        "select": deepseek.read_groups(config, "max") if limited else "top_k",
        "renormalise": False,
        "scale": config.number("routed_scaling_factor"),
    }
    for name in ("n_group", "topk_group"):  # read, but meaningless without groups
        config.raw(name)
    return {
        **common.read_stream(config),
        "position": read_rope(config, layout="interleaved", sharpens=True),
        "attention": deepseek.read_latent(config),
        **deepseek.read_layers(config, router, bias=config.flag("mlp_bias")),
    }


def _writes(model: Canonical) -> dict[str, Any]:
    limited = isinstance(model.mixture.router.select, GroupLimited)
    return {
        **common.write_stream(model),
        **deepseek.write_latent(model),
        **deepseek.write_layers(model),
        "mlp_bias": model.dense_bias,
        "scoring_func": "softmax",
        "topk_method": "group_limited_greedy" if limited else "greedy",
        "norm_topk_prob": False,
    }


DEEPSEEK_V2 = Family(
    name="deepseek_v2", title="DeepSeek-V2", architecture="DeepseekV2ForCausalLM",
    defaults=_DEFAULTS, reads=_reads, writes=_writes, tensor_map=deepseek.tensor_map,
    limits=common.divided_width(lambda model: model.latent.heads),
    aliases={"num_experts": "n_routed_experts"},
)  # fmt: skip
