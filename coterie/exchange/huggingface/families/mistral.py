"""Mistral: Llama without biases, with an optional sliding window.

Jiang et al. 2023, arXiv:2310.06825.
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
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": None, "hidden_act": "silu",
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
    "sliding_window": 4096, "attention_dropout": 0.0,
}  # fmt: skip


def _reads(config: Config) -> dict[str, Any]:
    return {
        **common.read_stream(config),
        "position": read_rope(config),
        "attention": common.read_attention(config) | {"window": common.read_window(config)},
        "feedforward": dense(config.whole("intermediate_size")),
    }


def _writes(model: Canonical) -> dict[str, Any]:
    return {
        **common.write_stream(model),
        "intermediate_size": model.dense_width or 1,
        "sliding_window": model.grouped.window,
    }


MISTRAL = Family(
    name="mistral", title="Mistral", architecture="MistralForCausalLM", defaults=_DEFAULTS,
    reads=_reads, writes=_writes, tensor_map=tensor_map,
)  # fmt: skip
