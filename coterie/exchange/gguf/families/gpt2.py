"""GPT-2: learned positions, LayerNorm, GELU, biases everywhere. Radford et al. 2019.

Queries, keys and values are joined in one tensor; matrices are held as [out, in].
"""

from typing import Any

from coterie.exchange.core.canonical import Canonical
from coterie.exchange.core.tensor_map import Entry, joined, same
from coterie.exchange.gguf.family import Family
from coterie.exchange.gguf.metadata import Metadata
from coterie.model import DecoderSettings

_EPSILON = "attention.layer_norm_epsilon"


def _reads(meta: Metadata) -> dict[str, Any]:
    width, heads = meta.whole("embedding_length"), meta.whole("attention.head_count")
    meta.raw("attention.head_count_kv")
    rows = meta.shapes.get("token_embd.weight", (0,))[0]
    return {
        "layers": meta.count("block_count"),
        "width": width,
        "context": meta.whole("context_length"),
        "vocab_size": rows or meta.whole("vocab_size"),
        "embedding": {"kind": "full"},
        "position": {"kind": "learned"},
        "norm": {"kind": "layer", "epsilon": meta.number(_EPSILON)},
        "attention": {"kind": "grouped", "heads": heads, "bias": True},
        "feedforward": {
            "kind": "dense",
            "mlp": {
                "kind": "mlp",
                "width": meta.whole("feed_forward_length", 4 * width),
                "bias": True,
                "activation": "gelu_tanh",
            },
        },
        "head": {"tied": not meta.has("output.weight")},
    }


def _writes(model: Canonical) -> dict[str, Any]:
    settings = model.settings
    return {
        "vocab_size": model.vocab_size,
        "context_length": settings.context,
        "embedding_length": settings.width,
        "block_count": settings.layers,
        "feed_forward_length": model.dense_width or 1,
        "attention.head_count": model.grouped.heads,
        _EPSILON: model.epsilon,
    }


def _tensor_map(settings: DecoderSettings) -> list[Entry]:
    entries = [
        same("embedding.weight", "token_embd.weight"),
        same("position.weight", "position_embd.weight", exact=True),
        same("norm.weight", "output_norm.weight", exact=True),
        same("norm.bias", "output_norm.bias", exact=True),
    ]
    for layer in range(settings.layers):
        entries += _block(f"blocks.{layer}", f"blk.{layer}")
    return entries if settings.head.tied else [*entries, same("head.weight", "output.weight")]


def _block(own: str, foreign: str) -> list[Entry]:
    attention, mlp = f"{own}.attention", f"{own}.feedforward.mlp"
    entries = []
    for part in ("weight", "bias"):
        norm, ffn_norm = f"{foreign}.attn_norm.{part}", f"{foreign}.ffn_norm.{part}"
        entries.append(same(f"{own}.attention_norm.{part}", norm, exact=True))
        entries.append(same(f"{own}.feedforward_norm.{part}", ffn_norm, exact=True))
        end, exact = ("", False) if part == "weight" else ("_bias", True)
        inputs = [f"{attention}.{name}{end}" for name in ("query", "key", "value")]
        entries.append(joined(inputs, f"{foreign}.attn_qkv.{part}"))
        for ours, theirs in (
            (f"{attention}.output", "attn_output"),
            (f"{mlp}.up", "ffn_up"),
            (f"{mlp}.down", "ffn_down"),
        ):
            entries.append(same(f"{ours}{end}", f"{foreign}.{theirs}.{part}", exact=exact))
    return entries


GPT2 = Family(name="gpt2", title="GPT-2", reads=_reads, writes=_writes, tensor_map=_tensor_map)
