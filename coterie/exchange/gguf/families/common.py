"""What the architectures after Llama share: names of values, grouped queries, routed layers."""

from typing import Any

from coterie.exchange.core.canonical import Canonical
from coterie.exchange.core.layers import dense, routed
from coterie.exchange.gguf.metadata import Metadata
from coterie.exchange.gguf.rope import read_rope, write_rope

EPSILON = "attention.layer_norm_rms_epsilon"


def read_stream(meta: Metadata) -> dict[str, Any]:
    rows = meta.shapes.get("token_embd.weight", (0,))[0]
    return {
        "layers": meta.count("block_count"),
        "width": meta.whole("embedding_length"),
        "context": meta.whole("context_length"),
        "vocab_size": rows or meta.whole("vocab_size"),
        "embedding": {"kind": "full"},
        "norm": {"kind": "rms", "epsilon": meta.number(EPSILON)},
        "head": {"tied": not meta.has("output.weight")},
    }


def read_grouped(meta: Metadata, **changes: Any) -> dict[str, Any]:
    """Return the settings of everything but the feed-forward layers.

    The imported model pairs the halves of a head, as the originals do.

    Args:
        changes: settings of the attention that are the architecture's own.
    """
    heads = meta.whole("attention.head_count")
    head_dim = meta.whole("attention.key_length", max(meta.whole("embedding_length") // heads, 1))
    values = meta.whole("attention.value_length", head_dim)
    if values != head_dim:
        meta.refuse(f"attention.value_length is {values}, key_length {head_dim}; they must agree")
    inputs, output = meta.has("blk.0.attn_q.bias"), meta.has("blk.0.attn_output.bias")
    norm = {"kind": "rms", "epsilon": meta.number(EPSILON)}
    attention = {
        "kind": "grouped",
        "heads": heads,
        "kv_heads": meta.whole("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "bias": output if inputs == output else "qkv",
        "query_key_norm": norm if "query_key_norm_over" in changes else None,
    }
    return {
        **read_stream(meta),
        "attention": attention | changes,
        "position": read_rope(meta, head_dim, layout="half"),
    }


def read_dense(meta: Metadata) -> dict[str, Any]:
    return dense(meta.whole("feed_forward_length"), bias=meta.has("blk.0.ffn_gate.bias"))


def read_routed(
    meta: Metadata, hidden: int, *, renormalise: bool | None, shared: int = 0
) -> dict[str, Any]:
    """Return the settings of routed layers under a softmax router.

    Args:
        renormalise: whether the gates of the selected experts are renormalised; None: if several.
        shared: width of a gated shared expert; 0: there is none.
    """
    router = {
        "score": "softmax",
        "select": "top_k",
        "renormalise": renormalise,
        "scale": meta.number("expert_weights_scale", 1.0),
    }
    count, selected = meta.count("expert_count"), meta.whole("expert_used_count")
    return routed(count, hidden, selected, router=router, shared=shared, shared_gate=shared > 0)


def write_stream(model: Canonical) -> dict[str, Any]:
    settings = model.settings
    return {
        "vocab_size": model.vocab_size,
        "context_length": settings.context,
        "embedding_length": settings.width,
        "block_count": settings.layers,
        EPSILON: model.epsilon,
    }


def write_grouped(model: Canonical) -> dict[str, Any]:
    """Return what a file says of everything but the feed-forward layers."""
    attention = model.grouped
    channels = attention.channels(model.settings.width)
    return {
        **write_stream(model),
        "attention.head_count": attention.heads,
        "attention.head_count_kv": attention.key_heads,
        "attention.key_length": channels,
        "attention.value_length": channels,
        **write_rope(model, channels),
    }


def write_routed(model: Canonical) -> dict[str, Any]:
    """Return what a file says of the experts under a softmax router, besides their width."""
    mixture = model.mixture
    values = {"expert_count": mixture.num_experts, "expert_used_count": mixture.experts_per_token}
    scale = mixture.router.scale
    return values if scale == 1.0 else {**values, "expert_weights_scale": scale}


def grouped_limits(model: Canonical) -> list[str]:
    """Refuse what no program that loads these architectures computes."""
    part = model.rotary.fraction
    return [] if part == 1.0 else [f"rotary positions on {part:g} of each head"]


def single_expert(model: Canonical) -> list[str]:
    """Refuse a single expert per token, whose gate would become 1."""
    single = any(model.is_routed) and model.mixture.experts_per_token == 1
    return ["a single expert per token with a gate other than 1"] if single else []
