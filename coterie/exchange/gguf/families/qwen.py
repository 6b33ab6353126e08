"""Qwen2 and Qwen3, dense and with experts, and OLMoE: Llama with small differences.

Qwen2 has biases on queries, keys and values, Qwen3 and OLMoE normalise queries and keys; Qwen2-MoE
gates one shared expert; Qwen3-MoE alone brings the shares of selected experts to a sum of one.
Here all of them pair the halves of a head, so rows stand as they are.
"""

from __future__ import annotations

from typing import Any

from coterie.exchange.gguf.families.common import (
    body_rules,
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
from coterie.exchange.huggingface.plain import Plain, swiglu
from coterie.exchange.huggingface.rules import Layout, Rule
from coterie.model import DecoderSettings
from coterie.model.attention import GroupedAttention
from coterie.model.experts import MixtureOfExperts

Changes = dict[str, Any]
_NORMED_BY_HEAD: Changes = {"query_key_norm_over": "head"}
_NORMED_OVER_ALL: Changes = {"query_key_norm_over": "all"}


def _grouped(meta: Metadata, changes: Changes) -> dict[str, Any]:
    values = read_grouped(meta, normed="query_key_norm_over" in changes)
    return {**values, "attention": {**values["attention"], **changes}}


def _limits(plain: Plain, changes: Changes) -> list[str]:
    """Return what programs refuse; those with a norm by head alone let heads have any size."""
    found, attention, width = grouped_limits(plain), plain.grouped, plain.settings.width
    if changes != _NORMED_BY_HEAD and attention.heads * attention.channels(width) != width:
        found.append(f"{attention.heads} heads that do not share the width of {width}")
    return found


def _dense_family(name: str, title: str, changes: Changes) -> Family:
    """Return a family of dense layers; `changes` hold for every attention layer of it."""

    def reads(meta: Metadata) -> dict[str, Any]:
        return {**_grouped(meta, changes), "feedforward": read_dense(meta)}

    def writes(plain: Plain) -> dict[str, Any]:
        return {**write_grouped(plain), "feed_forward_length": plain.dense_width or 1}

    return Family(name, title, reads, writes, _rules, lambda plain: _limits(plain, changes))


def _routed_family(
    name: str, title: str, changes: Changes, *, renormalise: bool, shared: bool = False
) -> Family:
    """Return a family of routed layers.

    Args:
        name: in the file.
        title: in sentences.
        changes: hold for every attention layer.
        renormalise: whether the selected experts' shares add up to one.
        shared: whether there is a gated shared expert.
    """

    def reads(meta: Metadata) -> dict[str, Any]:
        hidden = meta.whole("expert_feed_forward_length", meta.raw("feed_forward_length"))
        mixture: dict[str, Any] = {
            "kind": "moe",
            "experts": [{"count": meta.count("expert_count"), "body": swiglu(hidden)}],
            "experts_per_token": meta.whole("expert_used_count"),
            "router": {
                "score": "softmax",
                "select": "top_k",
                "renormalise": renormalise,
                "scale": meta.number("expert_weights_scale", 1.0),
            },
        }
        if shared:
            wide = meta.whole("expert_shared_feed_forward_length")
            mixture |= {"shared_experts": 1, "shared_gate": True, "shared_body": swiglu(wide)}
        return {**_grouped(meta, changes), "feedforward": mixture}

    def writes(plain: Plain) -> dict[str, Any]:
        values = {
            **write_grouped(plain),
            "feed_forward_length": plain.dense_width or plain.expert_width,
            "expert_feed_forward_length": plain.expert_width,
            "expert_count": plain.mixture.num_experts,
            "expert_used_count": plain.mixture.experts_per_token,
        }
        if plain.mixture.router.scale != 1.0:
            values["expert_weights_scale"] = plain.mixture.router.scale
        return values | (
            {"expert_shared_feed_forward_length": plain.shared_width} if shared else {}
        )

    def limits(plain: Plain) -> list[str]:
        found = _limits(plain, changes)
        if renormalise and plain.mixture.experts_per_token == 1:
            found.append("a single expert per token with a gate other than 1")
        if changes == _NORMED_OVER_ALL and plain.grouped.key_heads != plain.grouped.heads:
            found.append("fewer heads of keys than of queries")
        return found

    return Family(name, title, reads, writes, _rules, limits)


def _rules(settings: DecoderSettings) -> list[Rule]:
    rules = end_rules(settings)
    for layer, plan in enumerate(settings.plans()):
        rules += norm_rules(layer)
        assert isinstance(plan.attention, GroupedAttention)
        rules += grouped_rules(settings, layer, plan.attention, interleaved=False)
        if isinstance(plan.feedforward, MixtureOfExperts):
            rules += mixture_rules(layer, plan.feedforward)
            rules += _shared_rules(layer, plan.feedforward)
        else:
            rules += dense_rules(layer, bias=plan.feedforward.body.bias)
    return rules


def _shared_rules(layer: int, mixture: MixtureOfExperts) -> list[Rule]:
    if not mixture.shared_experts:
        return []
    own, foreign = f"blocks.{layer}.feedforward", f"blk.{layer}"
    rules = body_rules(f"{own}.shared.0", f"{foreign}.ffn_{{}}_shexp")
    if mixture.shared_gate:
        gate = Layout(
            (f"{foreign}.ffn_gate_inp_shexp.weight",),
            lambda found, shapes: [found[0].reshape(shapes[0])],
            lambda ours: [ours[0].flatten()],
        )
        rules.append(Rule((f"{own}.shared_gate.weight",), (gate,), exact=True))
    return rules


QWEN2 = _dense_family("qwen2", "Qwen2", {"bias": "qkv"})
QWEN3 = _dense_family("qwen3", "Qwen3", _NORMED_BY_HEAD)
QWEN2_MOE = _routed_family("qwen2moe", "Qwen2-MoE", {"bias": "qkv"}, renormalise=False, shared=True)
QWEN3_MOE = _routed_family("qwen3moe", "Qwen3-MoE", _NORMED_BY_HEAD, renormalise=True)
OLMOE = _routed_family("olmoe", "OLMoE", _NORMED_OVER_ALL, renormalise=False)
