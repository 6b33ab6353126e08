"""What most architectures share: names of values and tensors, grouped queries, gated bodies."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from coterie.exchange.gguf.metadata import Metadata
from coterie.exchange.gguf.rope import read_rope, write_rope
from coterie.exchange.huggingface.plain import Plain, swiglu
from coterie.exchange.huggingface.rules import Layout, Rule, same
from coterie.model import DecoderSettings
from coterie.model.attention import GroupedAttention
from coterie.model.experts import MixtureOfExperts
from coterie.model.position import RotaryPosition

EPSILON = "attention.layer_norm_rms_epsilon"


def read_stream(meta: Metadata) -> dict[str, Any]:
    """Return the settings of the residual stream and its two ends."""
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


def read_attention(meta: Metadata, *, normed: bool) -> dict[str, Any]:
    """Return the settings of grouped-query attention.

    Args:
        meta: what the file says.
        normed: whether queries and keys are normalised.
    """
    heads = meta.whole("attention.head_count")
    head_dim = meta.whole("attention.key_length", max(meta.whole("embedding_length") // heads, 1))
    values = meta.whole("attention.value_length", head_dim)
    if values != head_dim:
        meta.refuse(f"attention.value_length is {values}, key_length {head_dim}; they must agree")
    first = "blk.0.attn"
    inputs, output = meta.has(f"{first}_q.bias"), meta.has(f"{first}_output.bias")
    return {
        "kind": "grouped",
        "heads": heads,
        "kv_heads": meta.whole("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "bias": output if inputs == output else "qkv",
        "query_key_norm": {"kind": "rms", "epsilon": meta.number(EPSILON)} if normed else None,
    }


def read_grouped(meta: Metadata, *, normed: bool = False) -> dict[str, Any]:
    """Return the settings of everything but the feed-forward layers.

    The imported model pairs the halves of a head, as the originals do.

    Args:
        meta: what the file says.
        normed: whether queries and keys are normalised.
    """
    attention = read_attention(meta, normed=normed)
    return {
        **read_stream(meta),
        "attention": attention,
        "position": read_rope(meta, attention["head_dim"], layout="half"),
    }


def read_dense(meta: Metadata) -> dict[str, Any]:
    """Return the settings of a dense feed-forward layer."""
    bias = meta.has("blk.0.ffn_gate.bias")
    return {"kind": "dense", "body": swiglu(meta.whole("feed_forward_length"), bias=bias)}


def write_stream(plain: Plain) -> dict[str, Any]:
    """Return what a file says of the stream and its two ends."""
    settings = plain.settings
    return {
        "vocab_size": plain.vocab_size,
        "context_length": settings.context,
        "embedding_length": settings.width,
        "block_count": settings.layers,
        EPSILON: plain.epsilon,
    }


def write_grouped(plain: Plain) -> dict[str, Any]:
    """Return what a file says of everything but the feed-forward layers."""
    attention = plain.grouped
    channels = attention.channels(plain.settings.width)
    return {
        **write_stream(plain),
        "attention.head_count": attention.heads,
        "attention.head_count_kv": attention.key_heads,
        "attention.key_length": channels,
        "attention.value_length": channels,
        **write_rope(plain, channels),
    }


def grouped_limits(plain: Plain) -> list[str]:
    """Return what no program that reads these architectures computes."""
    part = plain.rotary.fraction
    return [] if part == 1.0 else [f"rotary positions on {part:g} of each head"]


def end_rules(settings: DecoderSettings) -> list[Rule]:
    """Return the rules of what stands before and after the layers."""
    rules = [
        same("embedding.weight", "token_embd.weight"),
        same("norm.weight", "output_norm.weight", exact=True),
    ]
    return rules if settings.head.tied else [*rules, same("head.weight", "output.weight")]


def norm_rules(layer: int) -> list[Rule]:
    """Return the rules of a layer's two normalisations."""
    return [
        same(f"blocks.{layer}.attention_norm.weight", f"blk.{layer}.attn_norm.weight", exact=True),
        same(f"blocks.{layer}.feedforward_norm.weight", f"blk.{layer}.ffn_norm.weight", exact=True),
    ]


def grouped_rules(
    settings: DecoderSettings, layer: int, attention: GroupedAttention, *, interleaved: bool
) -> list[Rule]:
    """Return the rules of a layer's grouped-query attention.

    Args:
        settings: of the decoder, whose positions pair the halves of a head.
        layer: its number.
        attention: its settings.
        interleaved: whether the program that reads the file pairs neighbours instead.
    """
    own, foreign = f"blocks.{layer}.attention", f"blk.{layer}.attn"
    channels = attention.channels(settings.width)
    position = settings.position
    assert isinstance(position, RotaryPosition)
    turn = position.turned(channels) if interleaved else 0
    rules = []
    for ours, theirs in {"query": "q", "key": "k", "value": "v", "output": "output"}.items():
        turned = turn if ours in ("query", "key") else 0
        rules.append(_rows(f"{own}.{ours}", f"{foreign}_{theirs}.weight", channels, turned))
        if attention.bias is True or (attention.bias == "qkv" and ours != "output"):
            bias = _rows(
                f"{own}.{ours}_bias", f"{foreign}_{theirs}.bias", channels, turned, exact=True
            )
            rules.append(bias)
    if attention.query_key_norm is not None:
        for ours, theirs in {"query": "q", "key": "k"}.items():
            name = f"{own}.{ours}_norm.weight"
            rules.append(_rows(name, f"{foreign}_{theirs}_norm.weight", channels, turn, exact=True))
    return rules


def _rows(own: str, foreign: str, channels: int, turned: int, *, exact: bool = False) -> Rule:
    """Return the rule of rows by heads, whose first `turned` of `channels` pair otherwise there."""
    if not turned:
        return same(own, foreign, exact=exact)

    def order() -> Tensor:
        """Return our rows of a head in their order: a pair's two beside each other."""
        halves = torch.arange(turned).view(2, -1)
        return torch.cat((halves.T.flatten(), torch.arange(turned, channels)))

    layout = Layout(
        (foreign,),
        lambda found, _: [_by_head(found[0], order().argsort())],
        # Only the shape of a tensor without content is asked for, which stays.
        lambda ours: [ours[0] if ours[0].is_meta else _by_head(ours[0], order())],
    )
    return Rule((own,), (layout,), exact)


def _by_head(rows: Tensor, order: Tensor) -> Tensor:
    return rows.unflatten(0, (-1, len(order)))[:, order].flatten(0, 1)


def dense_rules(layer: int, *, bias: bool) -> list[Rule]:
    """Return the rules of a dense layer's gated body."""
    return body_rules(f"blocks.{layer}.feedforward.body", f"blk.{layer}.ffn_{{}}", bias=bias)


def body_rules(own: str, foreign: str, *, bias: bool = False) -> list[Rule]:
    """Return the rules of one gated body; in `foreign` stands {} for the matrix's name."""
    rules = []
    for name in ("gate", "up", "down"):
        rules.append(same(f"{own}.{name}", f"{foreign.format(name)}.weight"))
        if bias:
            name_there = f"{foreign.format(name)}.bias"
            rules.append(same(f"{own}.{name}_bias", name_there, exact=True))
    return rules


def mixture_rules(layer: int, mixture: MixtureOfExperts) -> list[Rule]:
    """Return the rules of a router and its single pack of experts.

    All experts of a matrix stand in one tensor; files from before 2024 have a tensor for each.
    """
    own, foreign = f"blocks.{layer}.feedforward", f"blk.{layer}"
    rules = [same(f"{own}.router.weight", f"{foreign}.ffn_gate_inp.weight", exact=True)]
    for name in ("gate", "up", "down"):
        numbered = [f"{foreign}.ffn_{name}.{e}.weight" for e in range(mixture.num_experts)]
        together = Layout((f"{foreign}.ffn_{name}_exps.weight",), lambda x, _: x, lambda x: x)
        apart = Layout(
            tuple(numbered),
            lambda found, _: [torch.stack(found)],
            lambda ours: list(ours[0].unbind(0)),
        )
        rules.append(Rule((f"{own}.experts.0.{name}",), (together, apart)))
    return rules
