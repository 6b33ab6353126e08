"""DeepSeek-V2 and -V3: latent attention, some dense layers, then routed ones with shared experts.

DeepSeek-V2, arXiv:2405.04434; DeepSeek-V3, arXiv:2412.19437.
"""

from collections.abc import Sequence
from typing import Any

from coterie.exchange.core.canonical import Canonical
from coterie.exchange.core.layers import block_pattern, dense, routed
from coterie.exchange.gguf.families.common import read_stream, write_stream
from coterie.exchange.gguf.families.tensors import tensor_map
from coterie.exchange.gguf.family import Family
from coterie.exchange.gguf.metadata import Metadata
from coterie.exchange.gguf.rope import read_rope, write_rope
from coterie.model.position.scaling import YarnScaling

_SCORES = {1: "softmax", 2: "sigmoid"}
_LITE = (26, 27)  # llama.cpp assumes that models of so many layers do not compress queries


def _reads(meta: Metadata) -> dict[str, Any]:
    stream = read_stream(meta)
    attention = _read_attention(meta, stream["norm"])
    layers = stream["layers"]
    leading = min(meta.count("leading_dense_block_count", 0, least=0), layers)
    labels = ["dense"] * leading + ["moe"] * (layers - leading)
    blocks: dict[str, dict[str, Any]] = {}
    if leading:
        blocks["dense"] = {"feedforward": dense(meta.whole("feed_forward_length"))}
    if leading < layers:
        biased = meta.has(f"blk.{leading}.exp_probs_b.bias")
        blocks["moe"] = {"feedforward": _read_mixture(meta, biased=biased)}
    for redundant in ("attention.head_count_kv", "feed_forward_length"):
        meta.raw(redundant)
    return {
        **stream,
        "attention": attention,
        "position": read_rope(meta, attention["rope_dim"], layout="interleaved"),
        **block_pattern(labels, blocks),
    }


def _read_attention(meta: Metadata, norm: dict[str, Any]) -> dict[str, Any]:
    rank = meta.whole("attention.kv_lora_rank")
    rope = meta.whole("rope.dimension_count")
    # Newer files give the sizes of the absorbed form under the older names.
    key = meta.whole("attention.key_length_mla", meta.raw("attention.key_length"))
    value = meta.whole("attention.value_length_mla", meta.raw("attention.value_length"))
    if key <= rope:
        meta.refuse(f"heads have {key} channels, of which {rope} are rotated: none is left")
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
    router = {
        "score": _SCORES.get(gating, "softmax"),
        "select": select,
        "renormalise": meta.flag("expert_weights_norm"),
        "scale": meta.number("expert_weights_scale", 1.0),
    }
    return routed(
        meta.count("expert_count"),
        hidden,
        meta.whole("expert_used_count"),
        router=router,
        balance="bias" if biased else "none",
        shared=shared * hidden,
    )


def _writes(model: Canonical) -> dict[str, Any]:
    mla = model.latent
    leading = _leading(model.is_routed)
    values = {
        **write_stream(model),
        "leading_dense_block_count": leading,
        "feed_forward_length": model.dense_width or model.expert_width,
        "attention.head_count": mla.heads,
        "attention.head_count_kv": 1,  # the absorbed form has one key for all heads
        "attention.key_length": mla.kv_rank + mla.rope_dim,
        "attention.value_length": mla.kv_rank,
        "attention.key_length_mla": mla.nope_dim + mla.rope_dim,
        "attention.value_length_mla": mla.value_channels,
        "attention.kv_lora_rank": mla.kv_rank,
        "attention.q_lora_rank": mla.query_rank or 0,
        "expert_feed_forward_length": model.expert_width,
        "expert_shared_count": model.shared_width // model.expert_width,
        **write_rope(model, mla.rope_dim),
    }
    return values | (_write_mixture(model) if any(model.is_routed) else {})


def _write_mixture(model: Canonical) -> dict[str, Any]:
    mixture = model.mixture
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


def _leading(routed: Sequence[bool]) -> int:
    return next((layer for layer, has in enumerate(routed) if has), len(routed))


def _limits(model: Canonical) -> list[str]:
    limits = []
    mla, settings = model.latent, model.settings
    if (settings.layers in _LITE) and mla.query_rank is not None:
        limits.append(f"compressed queries in a model of {settings.layers} layers")
    if any(model.is_routed):
        if not model.shared_width:
            limits.append("routed layers without a shared expert")
        elif model.shared_width % model.expert_width:
            limits.append(
                f"shared experts of {model.shared_width} channels together, no multiple of the "
                f"routed experts' {model.expert_width}"
            )
        select = model.mixture.router.select
        if select.kind == "group_limited" and select.group_score == "max":
            limits.append("groups of experts that are ranked by their best one")
    scaling = model.rotary.scaling
    if isinstance(scaling, YarnScaling) and scaling.attention_factor != 1.0:
        limits.append("YaRN with a factor on rotated channels alone")
    return limits


DEEPSEEK2 = Family(
    name="deepseek2",
    title="DeepSeek-V2/V3",
    reads=_reads,
    writes=_writes,
    tensor_map=tensor_map,
    limits=_limits,
    notices={r"blk\.\d+\.nextn\..*": "the MTP modules"},
)
