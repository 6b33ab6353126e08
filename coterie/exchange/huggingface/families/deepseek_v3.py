"""DeepSeek-V3: multi-head latent attention; sigmoid scores, a selection bias, groups of experts.

DeepSeek-AI 2024, arXiv:2412.19437. The modules that predict further tokens are not exchanged: the
other side leaves them out as well.
"""

from __future__ import annotations

from typing import Any

from coterie.exchange.huggingface.config import Config
from coterie.exchange.huggingface.families.common import end_rules, read_stream, write_stream
from coterie.exchange.huggingface.families.deepseek import (
    feedforward_rules,
    latent_rules,
    pairs_needed,
    read_latent,
    read_layers,
    read_sigmoid_router,
    write_latent,
    write_layers,
)
from coterie.exchange.huggingface.family import Family
from coterie.exchange.huggingface.plain import Plain
from coterie.exchange.huggingface.rope import read_rope
from coterie.exchange.huggingface.rules import Rule
from coterie.model import DecoderSettings

_DEFAULTS = {
    "vocab_size": 129280, "hidden_size": 7168, "intermediate_size": 18432,
    "moe_intermediate_size": 2048, "num_hidden_layers": 61, "num_attention_heads": 128,
    "num_key_value_heads": None, "n_shared_experts": 1, "n_routed_experts": 256,
    "routed_scaling_factor": 2.5, "kv_lora_rank": 512, "q_lora_rank": 1536,
    "qk_rope_head_dim": 64, "v_head_dim": 128, "qk_nope_head_dim": 128, "n_group": 8,
    "topk_group": 4, "num_experts_per_tok": 8, "first_k_dense_replace": 3, "norm_topk_prob": True,
    "hidden_act": "silu", "max_position_embeddings": 4096, "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False, "rope_interleave": True, "attention_bias": False,
    "attention_dropout": 0.0, "head_dim": None, "qk_head_dim": None, "num_nextn_predict_layers": 1,
}  # fmt: skip


def _reads(config: Config) -> dict[str, Any]:
    layout = "interleaved" if config.flag("rope_interleave") else "half"
    return {
        **read_stream(config),
        "position": read_rope(config, layout=layout, sharpens=True),
        "attention": read_latent(config),
        **read_layers(config, read_sigmoid_router(config), {"kind": "bias"}),
    }


def _writes(plain: Plain) -> dict[str, Any]:
    return {
        **write_stream(plain),
        **write_latent(plain),
        **write_layers(plain),
        "rope_interleave": plain.rotary.layout == "interleaved",
        "scoring_func": "sigmoid",  # other programs assume softmax where this is missing
        "topk_method": "noaux_tc",
        "num_nextn_predict_layers": 0,
    }


def _rules(settings: DecoderSettings) -> list[Rule]:
    rules = end_rules(settings)
    for layer, plan in enumerate(settings.plans()):
        own, foreign = f"blocks.{layer}", f"model.layers.{layer}"
        rules += latent_rules(own, foreign, plan.attention)
        rules += feedforward_rules(
            f"{own}.feedforward", f"{foreign}.mlp", plan.feedforward, settings.width, biased=True
        )
    return rules


DEEPSEEK_V3 = Family(
    model_type="deepseek_v3",
    title="DeepSeek-V3",
    architecture="DeepseekV3ForCausalLM",
    prefix="model.",
    defaults=_DEFAULTS,
    reads=_reads,
    writes=_writes,
    rules=_rules,
    limits=pairs_needed,
    ahead=True,
    aliases={"num_local_experts": "n_routed_experts", "num_mtp_layers": "num_nextn_predict_layers"},
)
