"""DeepSeek-V3: multi-head latent attention; sigmoid scores, a selection bias, groups of experts.

DeepSeek-AI 2024, arXiv:2412.19437. The MTP modules are the layers after the last one.
"""

from typing import Any

from coterie.exchange.core.canonical import Canonical
from coterie.exchange.huggingface.config import Config
from coterie.exchange.huggingface.families import common, deepseek
from coterie.exchange.huggingface.family import Family
from coterie.exchange.huggingface.rope import read_rope

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
        **common.read_stream(config),
        "position": read_rope(config, layout=layout, sharpens=True),
        "attention": deepseek.read_latent(config),
        **deepseek.read_layers(config, deepseek.read_sigmoid_router(config), "bias"),
    }


def _writes(model: Canonical) -> dict[str, Any]:
    return {
        **common.write_stream(model),
        **deepseek.write_latent(model),
        **deepseek.write_layers(model),
        "rope_interleave": model.rotary.layout == "interleaved",
        **deepseek.write_sigmoid_router(model),
    }


DEEPSEEK_V3 = Family(
    name="deepseek_v3", title="DeepSeek-V3", architecture="DeepseekV3ForCausalLM",
    defaults=_DEFAULTS, reads=_reads, writes=_writes, tensor_map=deepseek.tensor_map,
    limits=deepseek.pairs_needed, mtp=deepseek.MODULES,
    aliases={"num_local_experts": "n_routed_experts", "num_mtp_layers": "num_nextn_predict_layers"},
)  # fmt: skip
