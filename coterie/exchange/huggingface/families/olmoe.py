"""OLMoE: routed SwiGLU experts in every layer, queries and keys normalised over their full width.

Muennighoff et al. 2024, arXiv:2409.02060.
"""

from typing import Any

from coterie.exchange.core.canonical import Canonical
from coterie.exchange.huggingface.config import Config
from coterie.exchange.huggingface.families import common
from coterie.exchange.huggingface.families.tensors import tensor_map
from coterie.exchange.huggingface.family import Family
from coterie.exchange.huggingface.rope import read_rope

_DEFAULTS = {
    "vocab_size": 50304, "hidden_size": 2048, "intermediate_size": 2048, "num_hidden_layers": 16,
    "num_attention_heads": 16, "num_key_value_heads": None, "hidden_act": "silu",
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
    "attention_bias": False, "attention_dropout": 0.0, "clip_qkv": None, "num_experts_per_tok": 8,
    "num_experts": 64, "router_aux_loss_coef": 0.01, "norm_topk_prob": False,
}  # fmt: skip
_EXPERTS = ("num_experts", "intermediate_size")


def _reads(config: Config) -> dict[str, Any]:
    config.require("clip_qkv", None)
    attention = common.read_attention(config) | {
        "bias": config.flag("attention_bias"),
        "query_key_norm": {"kind": "rms", "epsilon": config.number("rms_norm_eps")},
        "query_key_norm_over": "all",
    }
    router = {"renormalise": config.flag("norm_topk_prob")}
    return {
        **common.read_stream(config),
        "position": read_rope(config),
        "attention": attention,
        "feedforward": common.read_routed(config, *_EXPERTS, router=router),
    }


def _writes(model: Canonical) -> dict[str, Any]:
    return {
        **common.write_stream(model),
        "attention_bias": bool(model.grouped.bias),
        "clip_qkv": None,
        "norm_topk_prob": bool(model.mixture.router.renormalise),
        **common.write_routed(model, *_EXPERTS),
    }


OLMOE = Family(
    name="olmoe", title="OLMoE", architecture="OlmoeForCausalLM", defaults=_DEFAULTS, reads=_reads,
    writes=_writes, tensor_map=tensor_map, limits=common.equal_heads,
    aliases={"num_local_experts": "num_experts"},
)  # fmt: skip
