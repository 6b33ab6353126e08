"""What the families after Llama share: RMSNorm, rotary positions, grouped queries, gated bodies.

Their tensors have the same names; each family adds what is its own.
"""

from __future__ import annotations

from typing import Any

from coterie.exchange.huggingface.config import Config
from coterie.exchange.huggingface.plain import Plain
from coterie.exchange.huggingface.rope import write_rope
from coterie.exchange.huggingface.rules import ExpertNames, Rule, experts, same
from coterie.model import DecoderSettings
from coterie.model.attention import Attention, GroupedAttention
from coterie.model.experts import MixtureOfExperts
from coterie.model.experts.balance import AuxiliaryBalance
from coterie.model.feedforward import FeedForward

PER_EXPERT = ExpertNames(
    "experts.{e}.gate_proj.weight", "experts.{e}.up_proj.weight", "experts.{e}.down_proj.weight"
)
FUSED = ExpertNames("experts.gate_up_proj", "experts.gate_up_proj", "experts.down_proj")


def read_stream(config: Config) -> dict[str, Any]:
    """Return the settings of the residual stream and its two ends."""
    config.require("hidden_act", "silu", "swish")
    return {
        "layers": config.whole("num_hidden_layers"),
        "width": config.whole("hidden_size"),
        "context": config.whole("max_position_embeddings"),
        "vocab_size": config.whole("vocab_size"),
        "embedding": {"kind": "full"},
        "norm": {"kind": "rms", "epsilon": config.number("rms_norm_eps")},
        "head": {"tied": config.flag("tie_word_embeddings")},
    }


def read_attention(config: Config) -> dict[str, Any]:
    """Return the settings of grouped-query attention without anything special."""
    heads = config.whole("num_attention_heads")
    return {
        "kind": "grouped",
        "heads": heads,
        "kv_heads": config.whole("num_key_value_heads", heads),
        "head_dim": config.whole("head_dim", max(config.whole("hidden_size") // heads, 1)),
        "dropout": config.number("attention_dropout", 0.0),
    }


def read_window(config: Config) -> int | None:
    """Return the window of every layer; a file may say that there is none."""
    return None if config.raw("sliding_window") is None else config.whole("sliding_window")


def write_stream(plain: Plain) -> dict[str, Any]:
    """Return what a configuration says of the stream, its ends, and grouped-query attention."""
    settings, attention = plain.settings, plain.grouped
    return {
        "vocab_size": plain.vocab_size,
        "hidden_size": settings.width,
        "num_hidden_layers": settings.layers,
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.key_heads,
        "head_dim": attention.channels(settings.width),
        "hidden_act": "silu",
        "rms_norm_eps": plain.epsilon,
        "attention_dropout": attention.dropout,
        "tie_word_embeddings": settings.head.tied,
        **write_rope(plain),
    }


def equal_heads(plain: Plain) -> list[str]:
    """Return the complaint of families whose heads share the width between them."""
    attention, width = plain.grouped, plain.settings.width
    channels = attention.channels(width)
    if attention.heads * channels == width:
        return []
    return [f"{attention.heads} heads of {channels} channels in a width of {width}"]


def end_rules(settings: DecoderSettings) -> list[Rule]:
    """Return the rules of what stands before and after the layers."""
    rules = [
        same("embedding.weight", "model.embed_tokens.weight"),
        same("norm.weight", "model.norm.weight"),
    ]
    return rules if settings.head.tied else [*rules, same("head.weight", "lm_head.weight")]


def layer_rules(own: str, foreign: str, attention: Attention) -> list[Rule]:
    """Return the rules of a layer's normalisation and its grouped-query attention."""
    assert isinstance(attention, GroupedAttention)
    rules = [
        same(f"{own}.attention_norm.weight", f"{foreign}.input_layernorm.weight"),
        same(f"{own}.feedforward_norm.weight", f"{foreign}.post_attention_layernorm.weight"),
    ]
    names = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj"}
    for ours, theirs in names.items():
        rules.append(same(f"{own}.attention.{ours}", f"{foreign}.self_attn.{theirs}.weight"))
        if attention.bias is True or (attention.bias == "qkv" and ours != "output"):
            bias = f"{own}.attention.{ours}_bias"
            rules.append(same(bias, f"{foreign}.self_attn.{theirs}.bias"))
    if attention.query_key_norm is not None:
        for ours, theirs in (("query", "q_norm"), ("key", "k_norm")):
            scale = f"{own}.attention.{ours}_norm.weight"
            rules.append(same(scale, f"{foreign}.self_attn.{theirs}.weight"))
    return rules


def gated_rules(own: str, foreign: str, *, bias: bool = False) -> list[Rule]:
    """Return the rules of one gated body."""
    rules = []
    for name in ("gate", "up", "down"):
        rules.append(same(f"{own}.{name}", f"{foreign}.{name}_proj.weight"))
        if bias:
            rules.append(same(f"{own}.{name}_bias", f"{foreign}.{name}_proj.bias"))
    return rules


def mixture_rules(
    own: str,
    mixture: FeedForward,
    router: tuple[str, ...],
    *layouts: tuple[str, ExpertNames],
) -> list[Rule]:
    """Return the rules of a router and its single pack of experts.

    Args:
        own: the layer's feed-forward part in the decoder.
        mixture: its settings.
        router: the router's tensor, under its possible names.
        layouts: how the experts are named, each with what stands before the names.
    """
    assert isinstance(mixture, MixtureOfExperts)
    named = [
        ExpertNames(*(f"{before}.{each}" for each in (x.gate, x.up, x.down)))
        for before, x in layouts
    ]
    return [
        same(f"{own}.router.weight", *router),
        *experts(f"{own}.experts.0", mixture.num_experts, *named),
    ]


def read_balance(config: Config) -> dict[str, Any]:
    """Return the settings of balance: the auxiliary loss with its coefficient, where there is one.

    The coefficient is kept for further training here; no logit depends on it.
    """
    coefficient = config.number("router_aux_loss_coef", 0.0)
    return {"kind": "auxiliary", "coefficient": coefficient} if coefficient else {"kind": "none"}


def write_balance(mixture: MixtureOfExperts) -> dict[str, Any]:
    """Return what a configuration says of the auxiliary loss."""
    balance = mixture.balance
    coefficient = balance.coefficient if isinstance(balance, AuxiliaryBalance) else 0.0
    return {"router_aux_loss_coef": coefficient, "output_router_logits": False}
