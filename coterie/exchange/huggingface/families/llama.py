"""Llama: RMSNorm, rotary positions, grouped queries, SwiGLU; every layer alike and dense.

Touvron et al. 2023, arXiv:2302.13971.
"""

from __future__ import annotations

from typing import Any

from coterie.exchange.huggingface.config import Config
from coterie.exchange.huggingface.families.common import (
    end_rules,
    gated_rules,
    layer_rules,
    read_attention,
    read_stream,
    write_stream,
)
from coterie.exchange.huggingface.family import Family
from coterie.exchange.huggingface.plain import Plain, swiglu
from coterie.exchange.huggingface.rope import read_rope
from coterie.exchange.huggingface.rules import Rule
from coterie.model import DecoderSettings
from coterie.model.feedforward import Dense

_DEFAULTS = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": None, "hidden_act": "silu",
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
    "attention_bias": False, "attention_dropout": 0.0, "mlp_bias": False, "head_dim": None,
}  # fmt: skip


def _reads(config: Config) -> dict[str, Any]:
    hidden = config.whole("intermediate_size")
    return {
        **read_stream(config),
        "position": read_rope(config),
        "attention": read_attention(config) | {"bias": config.flag("attention_bias")},
        "feedforward": {"kind": "dense", "body": swiglu(hidden, bias=config.flag("mlp_bias"))},
    }


def _writes(plain: Plain) -> dict[str, Any]:
    body = getattr(plain.plans[0].feedforward, "body", None)
    return {
        **write_stream(plain),
        "intermediate_size": plain.dense_width or 1,
        "attention_bias": bool(plain.grouped.bias),
        "mlp_bias": bool(getattr(body, "bias", False)),
    }


def _limits(plain: Plain) -> list[str]:
    width, heads = plain.settings.width, plain.grouped.heads
    if width % heads:
        return [f"a width of {width} that is not a multiple of its {heads} heads"]
    return []


def rules(settings: DecoderSettings) -> list[Rule]:
    """Return the table of tensors."""
    found = end_rules(settings)
    for layer, plan in enumerate(settings.plans()):
        own, foreign = f"blocks.{layer}", f"model.layers.{layer}"
        found += layer_rules(own, foreign, plan.attention)
        assert isinstance(plan.feedforward, Dense)
        bias = plan.feedforward.body.bias
        found += gated_rules(f"{own}.feedforward.body", f"{foreign}.mlp", bias=bias)
    return found


LLAMA = Family(
    model_type="llama",
    title="Llama",
    architecture="LlamaForCausalLM",
    prefix="model.",
    defaults=_DEFAULTS,
    reads=_reads,
    writes=_writes,
    rules=rules,
    limits=_limits,
)
