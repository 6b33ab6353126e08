"""Qwen3-MoE: routed SwiGLU experts, each head of queries and keys normalised, no shared expert.

Yang et al. 2025, arXiv:2505.09388. Any layer may be dense.
"""

from typing import Any

from coterie.exchange.core.canonical import Canonical
from coterie.exchange.core.layers import block_pattern
from coterie.exchange.huggingface.config import Config
from coterie.exchange.huggingface.families import qwen
from coterie.exchange.huggingface.families.common import read_attention, read_stream, write_stream
from coterie.exchange.huggingface.families.tensors import tensor_map
from coterie.exchange.huggingface.family import Family
from coterie.exchange.huggingface.rope import read_rope

_DEFAULTS = qwen.DEFAULTS | {
    "intermediate_size": 6144, "num_attention_heads": 32, "num_key_value_heads": 4,
    "head_dim": None, "attention_bias": False, "moe_intermediate_size": 768,
    "num_experts_per_tok": 8, "num_experts": 128,
}  # fmt: skip


def _reads(config: Config) -> dict[str, Any]:
    window = config.raw("sliding_window") if config.flag("use_sliding_window") else None
    attention = read_attention(config) | {
        "bias": config.flag("attention_bias"),
        "window": None if window is None else config.whole("sliding_window"),
        "query_key_norm": {"kind": "rms", "epsilon": config.number("rms_norm_eps")},
    }
    blocks = {name: {"feedforward": x} for name, x in qwen.read_feedforward(config).items()}
    return {
        **read_stream(config),
        "position": read_rope(config),
        "attention": attention,
        **block_pattern(qwen.read_labels(config), blocks),
    }


def _writes(model: Canonical) -> dict[str, Any]:
    window = model.grouped.window
    return {
        **write_stream(model),
        "attention_bias": bool(model.grouped.bias),
        "use_sliding_window": window is not None,
        "sliding_window": window,
        **qwen.write_feedforward(model),
    }


QWEN3_MOE = Family(
    name="qwen3_moe", title="Qwen3-MoE", architecture="Qwen3MoeForCausalLM", defaults=_DEFAULTS,
    reads=_reads, writes=_writes, tensor_map=tensor_map,
    aliases={"num_local_experts": "num_experts"},
)  # fmt: skip
