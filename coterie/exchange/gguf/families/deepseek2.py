"""DeepSeek-V2 and -V3: latent attention, some dense layers, then routed ones with shared experts.

DeepSeek-V2, arXiv:2405.04434; DeepSeek-V3, arXiv:2412.19437. Newer files hold the matrices that
raise the latent in two tensors, turned for the absorbed form, older ones in one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from coterie.exchange.gguf.families.common import (
    body_rules,
    dense_rules,
    end_rules,
    mixture_rules,
    norm_rules,
    read_stream,
    write_stream,
)
from coterie.exchange.gguf.family import Family
from coterie.exchange.gguf.metadata import Metadata
from coterie.exchange.gguf.rope import read_rope, write_rope
from coterie.exchange.huggingface.plain import Plain, arranged, swiglu
from coterie.exchange.huggingface.rules import Layout, Rule, same
from coterie.model import DecoderSettings
from coterie.model.attention import LatentAttention
from coterie.model.experts import MixtureOfExperts
from coterie.model.position.scaling import YarnScaling

_SCORES = {1: "softmax", 2: "sigmoid"}
_LITE = (26, 27)  # so many layers are taken to have queries that are not compressed


def _reads(meta: Metadata) -> dict[str, Any]:
    stream = read_stream(meta)
    attention = _read_attention(meta, stream["norm"])
    layers = stream["layers"]
    leading = min(meta.count("leading_dense_block_count", 0, least=0), layers)
    labels = ["dense"] * leading + ["moe"] * (layers - leading)
    blocks: dict[str, dict[str, Any]] = {}
    if leading:
        dense = {"kind": "dense", "body": swiglu(meta.whole("feed_forward_length"))}
        blocks["dense"] = {"feedforward": dense}
    if leading < layers:
        biased = meta.has(f"blk.{leading}.exp_probs_b.bias")
        blocks["moe"] = {"feedforward": _read_mixture(meta, biased=biased)}
    for said_otherwise in ("attention.head_count_kv", "feed_forward_length"):
        meta.raw(said_otherwise)
    return {
        **stream,
        "attention": attention,
        "position": read_rope(meta, attention["rope_dim"], layout="interleaved"),
        **arranged(labels, blocks),
    }


def _read_attention(meta: Metadata, norm: dict[str, Any]) -> dict[str, Any]:
    rank = meta.whole("attention.kv_lora_rank")
    rope = meta.whole("rope.dimension_count")
    # Older files give the true sizes under the first name, newer ones those of the absorbed form.
    key = meta.whole("attention.key_length_mla", meta.raw("attention.key_length"))
    value = meta.whole("attention.value_length_mla", meta.raw("attention.value_length"))
    if key <= rope:
        meta.refuse(f"heads have {key} channels, of which {rope} are turned: none is left")
    return {
        "kind": "mla",
        "heads": meta.whole("attention.head_count"),
        "kv_rank": rank,
        "query_rank": meta.whole("attention.q_lora_rank", 0, least=0) or None,
        "nope_dim": max(key - rope, 1),
        "rope_dim": rope,
        "value_dim": value,
        "latent_norm": norm,
    }


def _read_mixture(meta: Metadata, *, biased: bool) -> dict[str, Any]:
    hidden = meta.whole("expert_feed_forward_length")
    shared = meta.count("expert_shared_count", 0, least=0)
    gating = meta.whole("expert_gating_func", 1)
    if gating not in _SCORES:
        meta.refuse(f"expert_gating_func is {gating}; only 1 (softmax) and 2 (sigmoid) are known")
    select: dict[str, Any] = {"kind": "top_k"}
    groups = meta.whole("expert_group_count", 1, least=0)
    if groups > 1:
        select = {
            "kind": "group_limited",
            "groups": groups,
            "groups_per_token": meta.whole("expert_group_used_count"),
            "group_score": "top_two_sum" if gating == 2 or biased else "max",
        }
    mixture: dict[str, Any] = {
        "kind": "moe",
        "experts": [{"count": meta.count("expert_count"), "body": swiglu(hidden)}],
        "experts_per_token": meta.whole("expert_used_count"),
        "shared_experts": min(shared, 1),
        "router": {
            "score": _SCORES.get(gating, "softmax"),
            "select": select,
            "renormalise": meta.flag("expert_weights_norm"),
            "scale": meta.number("expert_weights_scale", 1.0),
        },
        "balance": "bias" if biased else "none",
    }
    return mixture | ({"shared_body": swiglu(shared * hidden)} if shared else {})


def _writes(plain: Plain) -> dict[str, Any]:
    mla = _latent(plain)
    leading = _leading(plain.is_routed)
    values = {
        **write_stream(plain),
        "leading_dense_block_count": leading,
        "feed_forward_length": plain.dense_width or plain.expert_width,
        "attention.head_count": mla.heads,
        "attention.head_count_kv": 1,  # the absorbed form has one key for all heads
        "attention.key_length": mla.kv_rank + mla.rope_dim,
        "attention.value_length": mla.kv_rank,
        "attention.key_length_mla": mla.nope_dim + mla.rope_dim,
        "attention.value_length_mla": mla.value_channels,
        "attention.kv_lora_rank": mla.kv_rank,
        "attention.q_lora_rank": mla.query_rank or 0,
        "expert_feed_forward_length": plain.expert_width,
        "expert_shared_count": plain.shared_width // plain.expert_width,
        **write_rope(plain, mla.rope_dim),
    }
    return values | (_write_mixture(plain) if any(plain.is_routed) else {})


def _write_mixture(plain: Plain) -> dict[str, Any]:
    mixture = plain.mixture
    router, select = mixture.router, mixture.router.select
    values = {
        "expert_count": mixture.num_experts,
        "expert_used_count": mixture.experts_per_token,
        "expert_gating_func": 2 if router.score.kind == "sigmoid" else 1,
        "expert_weights_norm": bool(router.renormalise),
        "expert_weights_scale": float(router.scale),
    }
    if select.kind == "group_limited":
        values["expert_group_count"] = select.groups
        values["expert_group_used_count"] = select.groups_per_token
    return values


def _latent(plain: Plain) -> LatentAttention:
    """Return the first latent attention, or the least one where there is none."""
    found = (x.attention for x in plain.plans if isinstance(x.attention, LatentAttention))
    return next(found, LatentAttention(heads=1, kv_rank=1, nope_dim=1, rope_dim=2))


def _leading(routed: Sequence[bool]) -> int:
    """Return how many layers come before the first routed one."""
    return next((layer for layer, has in enumerate(routed) if has), len(routed))


def _limits(plain: Plain) -> list[str]:
    limits = []
    mla, settings = _latent(plain), plain.settings
    if (settings.layers in _LITE) and mla.query_rank is not None:
        limits.append(f"compressed queries in a model of {settings.layers} layers")
    if any(plain.is_routed):
        if not plain.shared_width:
            limits.append("routed layers without a shared expert")
        elif plain.shared_width % plain.expert_width:
            limits.append(
                f"shared experts of {plain.shared_width} channels together, no multiple of the "
                f"routed experts' {plain.expert_width}"
            )
        select = plain.mixture.router.select
        if select.kind == "group_limited" and select.group_score == "max":
            limits.append("groups of experts that are ranked by their best one")
    scaling = plain.rotary.scaling
    if isinstance(scaling, YarnScaling) and scaling.attention_factor != 1.0:
        limits.append("YaRN with a factor on turned channels alone")
    return limits


def _rules(settings: DecoderSettings) -> list[Rule]:
    rules = end_rules(settings)
    for layer, plan in enumerate(settings.plans()):
        rules += norm_rules(layer)
        assert isinstance(plan.attention, LatentAttention)
        rules += _attention_rules(f"blocks.{layer}.attention", f"blk.{layer}", plan.attention)
        if isinstance(plan.feedforward, MixtureOfExperts):
            rules += _mixture_rules(layer, plan.feedforward)
        else:
            rules += dense_rules(layer, bias=False)
    return rules


def _attention_rules(own: str, foreign: str, mla: LatentAttention) -> list[Rule]:
    rules = [
        same(f"{own}.kv_down", f"{foreign}.attn_kv_a_mqa.weight"),
        same(f"{own}.kv_norm.weight", f"{foreign}.attn_kv_a_norm.weight", exact=True),
        _raised(f"{own}.kv_up", foreign, mla),
        same(f"{own}.output", f"{foreign}.attn_output.weight"),
    ]
    if mla.query_rank is None:
        return [*rules, same(f"{own}.query", f"{foreign}.attn_q.weight")]
    return [
        *rules,
        same(f"{own}.query_down", f"{foreign}.attn_q_a.weight"),
        same(f"{own}.query_norm.weight", f"{foreign}.attn_q_a_norm.weight", exact=True),
        same(f"{own}.query_up", f"{foreign}.attn_q_b.weight"),
    ]


def _raised(own: str, foreign: str, mla: LatentAttention) -> Rule:
    """Return the rule of what raises the latent: by head N rows of the key, then E of the value."""
    sizes = (mla.nope_dim, mla.value_channels)

    def to_own(found: list[Tensor], shapes: Sequence[torch.Size]) -> list[Tensor]:
        key, value = found
        return [torch.cat((key.mT, value), dim=1).flatten(0, 1)]

    def to_foreign(ours: list[Tensor]) -> list[Tensor]:
        key, value = ours[0].unflatten(0, (mla.heads, -1)).split(sizes, dim=1)
        return [key.mT, value]

    apart = Layout((f"{foreign}.attn_k_b.weight", f"{foreign}.attn_v_b.weight"), to_own, to_foreign)
    together = Layout((f"{foreign}.attn_kv_b.weight",), lambda x, _: x, lambda x: x)
    return Rule((own,), (apart, together))


def _mixture_rules(layer: int, mixture: MixtureOfExperts) -> list[Rule]:
    own, foreign = f"blocks.{layer}.feedforward", f"blk.{layer}"
    rules = mixture_rules(layer, mixture)
    if mixture.balance.kind == "bias":
        bias = f"{own}.balance.selection_bias"
        rules.append(same(bias, f"{foreign}.exp_probs_b.bias", exact=True))
    if mixture.shared_experts:
        rules += body_rules(f"{own}.shared.0", f"{foreign}.ffn_{{}}_shexp")
    return rules


DEEPSEEK2 = Family(
    name="deepseek2",
    title="DeepSeek-V2/V3",
    reads=_reads,
    writes=_writes,
    rules=_rules,
    limits=_limits,
    notices={r"blk\.\d+\.nextn\..*": "the head that predicts tokens further ahead"},
)
