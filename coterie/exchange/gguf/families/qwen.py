"""Qwen2 and Qwen3, dense and routed, and OLMoE: Llama with small differences.

Qwen2 has biases on queries, keys and values, Qwen3 and OLMoE normalise queries and keys; Qwen2-MoE
gates one shared expert; only Qwen3-MoE renormalises the gates of the selected experts. All of them
pair the halves of a head, so rows keep their order.
"""

from typing import Any

from coterie.exchange.core.canonical import Canonical
from coterie.exchange.gguf.families import common
from coterie.exchange.gguf.families.tensors import tensor_map
from coterie.exchange.gguf.family import Family
from coterie.exchange.gguf.metadata import Metadata

Changes = dict[str, Any]
_NORMED_BY_HEAD: Changes = {"query_key_norm_over": "head"}
_NORMED_OVER_ALL: Changes = {"query_key_norm_over": "all"}


def _limits(model: Canonical, changes: Changes) -> list[str]:
    """Refuse what programs refuse; those with a norm by head alone let heads have any size."""
    found, attention, width = common.grouped_limits(model), model.grouped, model.settings.width
    if changes != _NORMED_BY_HEAD and attention.heads * attention.channels(width) != width:
        found.append(f"{attention.heads} heads that do not share the width of {width}")
    return found


def _dense_family(name: str, title: str, changes: Changes) -> Family:
    """Return a family of dense layers; `changes` are the settings of its attention."""

    def reads(meta: Metadata) -> dict[str, Any]:
        return {**common.read_grouped(meta, **changes), "feedforward": common.read_dense(meta)}

    def writes(model: Canonical) -> dict[str, Any]:
        return {**common.write_grouped(model), "feed_forward_length": model.dense_width or 1}

    return Family(
        name=name,
        title=title,
        reads=reads,
        writes=writes,
        tensor_map=tensor_map,
        limits=lambda model: _limits(model, changes),
    )


def _routed_family(
    name: str, title: str, changes: Changes, *, renormalise: bool, shared: bool = False
) -> Family:
    """Return a family of routed layers.

    Args:
        renormalise: whether the gates of the selected experts are renormalised.
    """
    shared_width = "expert_shared_feed_forward_length"

    def reads(meta: Metadata) -> dict[str, Any]:
        hidden = meta.whole("expert_feed_forward_length", meta.raw("feed_forward_length"))
        wide = meta.whole(shared_width) if shared else 0
        mixture = common.read_routed(meta, hidden, renormalise=renormalise, shared=wide)
        return {**common.read_grouped(meta, **changes), "feedforward": mixture}

    def writes(model: Canonical) -> dict[str, Any]:
        return {
            **common.write_grouped(model),
            "feed_forward_length": model.dense_width or model.expert_width,
            "expert_feed_forward_length": model.expert_width,
            **common.write_routed(model),
            **({shared_width: model.shared_width} if shared else {}),
        }

    def limits(model: Canonical) -> list[str]:
        found = _limits(model, changes) + (common.single_expert(model) if renormalise else [])
        if changes == _NORMED_OVER_ALL and model.grouped.key_heads != model.grouped.heads:
            found.append("fewer heads of keys than of queries")
        return found

    return Family(
        name=name, title=title, reads=reads, writes=writes, tensor_map=tensor_map, limits=limits
    )


QWEN2 = _dense_family("qwen2", "Qwen2", {"bias": "qkv"})
QWEN3 = _dense_family("qwen3", "Qwen3", _NORMED_BY_HEAD)
QWEN2_MOE = _routed_family("qwen2moe", "Qwen2-MoE", {"bias": "qkv"}, renormalise=False, shared=True)
QWEN3_MOE = _routed_family("qwen3moe", "Qwen3-MoE", _NORMED_BY_HEAD, renormalise=True)
OLMOE = _routed_family("olmoe", "OLMoE", _NORMED_OVER_ALL, renormalise=False)
