"""Qwen2-MoE: routed SwiGLU experts and a gated shared one, biases on queries, keys and values.

Yang et al. 2024, arXiv:2407.10671. Layers without experts, or with a sliding window, may stand
between the others.
"""

from __future__ import annotations

from typing import Any

from coterie.exchange.huggingface.config import Config
from coterie.exchange.huggingface.families import qwen
from coterie.exchange.huggingface.families.common import (
    equal_heads,
    read_attention,
    read_stream,
    write_stream,
)
from coterie.exchange.huggingface.family import Family
from coterie.exchange.huggingface.plain import Plain, arranged, swiglu
from coterie.exchange.huggingface.rope import read_rope

_DEFAULTS = qwen.DEFAULTS | {
    "intermediate_size": 5632, "num_attention_heads": 16, "num_key_value_heads": 16,
    "moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632,
    "num_experts_per_tok": 4, "num_experts": 60, "qkv_bias": True, "max_window_layers": 28,
    "layer_types": None,
}  # fmt: skip
_SLIDING, _FULL = "sliding_attention", "full_attention"


def _reads(config: Config) -> dict[str, Any]:
    attention = read_attention(config) | {"bias": "qkv" if config.flag("qkv_bias") else False}
    bodies = qwen.read_feedforward(config)
    bodies["moe"] |= {
        "shared_experts": 1,
        "shared_gate": True,
        "shared_body": swiglu(config.whole("shared_expert_intermediate_size")),
    }
    window = config.raw("sliding_window") if config.flag("use_sliding_window") else None
    blocks: dict[str, dict[str, Any]] = {}
    for label, body in bodies.items():
        blocks[label] = {"attention": attention, "feedforward": body}
        blocks[f"{label}-window"] = {
            "attention": attention | {"window": window},
            "feedforward": body,
        }
    labels = qwen.read_labels(config)
    slides = _sliding(config, len(labels)) if window else [False] * len(labels)
    labels = [
        f"{label}-window" if slide else label for label, slide in zip(labels, slides, strict=True)
    ]
    return {
        **read_stream(config),
        "position": read_rope(config),
        **arranged(labels, blocks),
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


def _writes(plain: Plain) -> dict[str, Any]:
    windows = [getattr(plan.attention, "window", None) for plan in plain.plans]
    widths = [each for each in windows if each is not None]
    return {
        **write_stream(plain),
        "qkv_bias": bool(plain.grouped.bias),
        "use_sliding_window": bool(widths),
        "sliding_window": widths[0] if widths else None,
        "layer_types": [_FULL if each is None else _SLIDING for each in windows],
        "shared_expert_intermediate_size": plain.shared_width or 1,
        **qwen.write_feedforward(plain),
    }


QWEN2_MOE = Family(
    model_type="qwen2_moe",
    title="Qwen2-MoE",
    architecture="Qwen2MoeForCausalLM",
    prefix="model.",
    defaults=_DEFAULTS,
    reads=_reads,
    writes=_writes,
    rules=qwen.rules,
    limits=equal_heads,
    aliases={"num_local_experts": "num_experts"},
)
