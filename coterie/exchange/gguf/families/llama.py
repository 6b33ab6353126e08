"""Llama and Mixtral, one architecture there: every layer dense, or every layer with experts.

The programs that read it turn neighbouring channels as pairs, so rows of queries and keys are
written in that order; the imported model pairs the halves of a head, as the original does.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from coterie.exchange.gguf.families.common import (
    dense_rules,
    end_rules,
    grouped_limits,
    grouped_rules,
    mixture_rules,
    norm_rules,
    read_dense,
    read_grouped,
    write_grouped,
)
from coterie.exchange.gguf.family import Family
from coterie.exchange.gguf.metadata import Metadata
from coterie.exchange.gguf.rope import FACTORS, rope_factors
from coterie.exchange.huggingface.plain import Plain, swiglu
from coterie.exchange.huggingface.rules import Rule
from coterie.model import DecoderSettings
from coterie.model.attention import GroupedAttention
from coterie.model.experts import MixtureOfExperts


def _reads(meta: Metadata) -> dict[str, Any]:
    count = meta.count("expert_count", 0, least=0)
    if not count:
        return {**read_grouped(meta), "feedforward": read_dense(meta)}
    mixture = {
        "kind": "moe",
        "experts": [{"count": count, "body": swiglu(meta.whole("feed_forward_length"))}],
        "experts_per_token": meta.whole("expert_used_count"),
        "router": {
            "score": "softmax",
            "select": "top_k",
            "renormalise": None,
            "scale": meta.number("expert_weights_scale", 1.0),
        },
    }
    return {**read_grouped(meta), "feedforward": mixture}


def _writes(plain: Plain) -> dict[str, Any]:
    values = write_grouped(plain)
    if not all(plain.is_routed):
        return {**values, "feed_forward_length": plain.dense_width or plain.expert_width}
    router = plain.mixture.router
    values |= {
        "feed_forward_length": plain.expert_width,
        "expert_count": plain.mixture.num_experts,
        "expert_used_count": plain.mixture.experts_per_token,
    }
    return values if router.scale == 1.0 else {**values, "expert_weights_scale": router.scale}


def _limits(plain: Plain) -> list[str]:
    limits = grouped_limits(plain)
    if any(plain.is_routed) and plain.mixture.experts_per_token == 1:
        limits.append("a single expert per token with a gate other than 1")
    return limits


def _rules(settings: DecoderSettings) -> list[Rule]:
    rules = end_rules(settings)
    for layer, plan in enumerate(settings.plans()):
        rules += norm_rules(layer)
        assert isinstance(plan.attention, GroupedAttention)
        rules += grouped_rules(settings, layer, plan.attention, interleaved=True)
        if isinstance(plan.feedforward, MixtureOfExperts):
            rules += mixture_rules(layer, plan.feedforward)
        else:
            rules += dense_rules(layer, bias=plan.feedforward.body.bias)
    return rules


def _extras(plain: Plain) -> dict[str, Tensor]:
    return rope_factors(plain, plain.grouped.channels(plain.settings.width))


LLAMA = Family(
    name="llama",
    title="Llama (or Mixtral, where there are experts)",
    reads=_reads,
    writes=_writes,
    rules=_rules,
    limits=_limits,
    extras=_extras,
    settings_in_tensors=(FACTORS,),
    notices={r"blk\.\d+\.attn_rot_embd\..*": "a table of rotations that follows from the settings"},
)
