"""Qwen2-MoE: routed SwiGLU experts and a gated shared one, biases on queries, keys and values.

Yang et al. 2024, arXiv:2407.10671. Any layer may be dense, and any may have a sliding window.
"""

from typing import Any

from coterie.exchange.core.canonical import Canonical
from coterie.exchange.core.layers import block_pattern
from coterie.exchange.huggingface.config import Config
from coterie.exchange.huggingface.families import common, qwen
from coterie.exchange.huggingface.families.tensors import RoutedNames, tensor_map_with
from coterie.exchange.huggingface.family import Family
from coterie.exchange.huggingface.rope import read_rope

_DEFAULTS = qwen.DEFAULTS | {
    "intermediate_size": 5632, "num_attention_heads": 16, "num_key_value_heads": 16,
    "moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632,
    "num_experts_per_tok": 4, "num_experts": 60, "qkv_bias": True, "max_window_layers": 28,
    "layer_types": None,
}  # fmt: skip
_NAMES = RoutedNames(shared="mlp.shared_expert")
_SLIDING, _FULL = "sliding_attention", "full_attention"


def _reads(config: Config) -> dict[str, Any]:
    attention = common.read_attention(config) | {
        "bias": "qkv" if config.flag("qkv_bias") else False
    }
    feedforwards = qwen.read_feedforward(config, shared="shared_expert_intermediate_size")
    window = config.raw("sliding_window") if config.flag("use_sliding_window") else None
    blocks: dict[str, dict[str, Any]] = {}
    for label, feedforward in feedforwards.items():
        blocks[label] = {"attention": attention, "feedforward": feedforward}
        blocks[f"{label}-window"] = blocks[label] | {"attention": attention | {"window": window}}
    labels = qwen.read_labels(config)
    slides = _sliding(config, len(labels)) if window else [False] * len(labels)
    labels = [
        f"{label}-window" if slide else label for label, slide in zip(labels, slides, strict=True)
    ]
    return {
        **common.read_stream(config),
        "position": read_rope(config),
        **block_pattern(labels, blocks),
    }


def _sliding(config: Config, layers: int) -> list[bool]:
    """Return which layers have a window: those listed, or every other one from the first."""
    types = config.raw("layer_types")
    if types is None:
        limit = config.whole("max_window_layers", least=0)
        return [layer % 2 == 0 and layer < limit for layer in range(layers)]
    known = isinstance(types, list) and len(types) == layers and {*types} <= {_SLIDING, _FULL}
    if not known:
        config.refuse(f"layer_types is {types!r}; it must name {_SLIDING} or {_FULL} per layer")
        return [False] * layers
    return [each == _SLIDING for each in types]


def _writes(model: Canonical) -> dict[str, Any]:
    windows = [getattr(plan.attention, "window", None) for plan in model.plans]
    widths = [each for each in windows if each is not None]
    return {
        **common.write_stream(model),
        "qkv_bias": bool(model.grouped.bias),
        "use_sliding_window": bool(widths),
        "sliding_window": widths[0] if widths else None,
        "layer_types": [_FULL if each is None else _SLIDING for each in windows],
        "shared_expert_intermediate_size": model.shared_width or 1,
        **qwen.write_feedforward(model),
    }


QWEN2_MOE = Family(
    name="qwen2_moe", title="Qwen2-MoE", architecture="Qwen2MoeForCausalLM", defaults=_DEFAULTS,
    reads=_reads, writes=_writes, tensor_map=tensor_map_with(_NAMES), limits=common.equal_heads,
    aliases={"num_local_experts": "num_experts"},
)  # fmt: skip
