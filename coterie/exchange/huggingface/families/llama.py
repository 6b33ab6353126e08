"""Llama: RMSNorm, rotary positions, grouped queries, SwiGLU; every layer alike and dense.

Touvron et al. 2023, arXiv:2302.13971.
"""

from typing import Any

from coterie.exchange.core.canonical import Canonical
from coterie.exchange.core.layers import dense
from coterie.exchange.huggingface.config import Config
from coterie.exchange.huggingface.families import common
from coterie.exchange.huggingface.families.tensors import tensor_map
from coterie.exchange.huggingface.family import Family
from coterie.exchange.huggingface.rope import read_rope

_DEFAULTS = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": None, "hidden_act": "silu",
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
    "attention_bias": False, "attention_dropout": 0.0, "mlp_bias": False, "head_dim": None,
}  # fmt: skip


def _reads(config: Config) -> dict[str, Any]:
    return {
        **common.read_stream(config),
        "position": read_rope(config),
        "attention": common.read_attention(config) | {"bias": config.flag("attention_bias")},
        "feedforward": dense(config.whole("intermediate_size"), bias=config.flag("mlp_bias")),
    }


def _writes(model: Canonical) -> dict[str, Any]:
    return {
        **common.write_stream(model),
        "intermediate_size": model.dense_width or 1,
        "attention_bias": bool(model.grouped.bias),
        "mlp_bias": model.dense_bias,
    }


LLAMA = Family(
    name="llama", title="Llama", architecture="LlamaForCausalLM", defaults=_DEFAULTS, reads=_reads,
    writes=_writes, tensor_map=tensor_map,
    limits=common.divided_width(lambda model: model.grouped.heads),
)  # fmt: skip
