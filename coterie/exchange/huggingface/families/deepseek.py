"""What DeepSeek-V2, DeepSeek-V3 and Glm4-MoE share: first dense, then routed layers with a shared
body, and the tensors of multi-head latent attention.
"""

from __future__ import annotations

from typing import Any

from coterie.exchange.huggingface.config import Config
from coterie.exchange.huggingface.families.common import (
    FUSED,
    PER_EXPERT,
    gated_rules,
    mixture_rules,
)
from coterie.exchange.huggingface.plain import Plain, arranged, swiglu
from coterie.exchange.huggingface.rules import Rule, empty, same
from coterie.model.attention import Attention
from coterie.model.attention.mla import LatentAttention
from coterie.model.experts.select import GroupLimited
from coterie.model.feedforward import Dense, FeedForward

LATENT_EPSILON = 1e-6  # of the norms of latents, whatever rms_norm_eps says


def read_layers(
    config: Config, router: dict[str, Any], balance: dict[str, Any], *, bias: bool = False
) -> dict[str, Any]:
    """Return the settings of all layers: `first_k_dense_replace` dense ones, then routed ones.

    Args:
        config: the configuration.
        router: settings of the router.
        balance: settings of the balance.
        bias: whether dense and shared bodies have biases.
    """
    config.require("moe_layer_freq", 1, None)
    layers = config.whole("num_hidden_layers")
    first = min(config.whole("first_k_dense_replace", 0, least=0), layers)
    width = config.whole("moe_intermediate_size")
    shared = config.whole("n_shared_experts", 0, least=0)
    routed: dict[str, Any] = {
        "kind": "moe",
        "experts": [{"count": config.whole("n_routed_experts"), "body": swiglu(width)}],
        "shared_experts": min(shared, 1),
        "experts_per_token": config.whole("num_experts_per_tok"),
        "router": router,
        "balance": balance,
    }
    if shared:
        routed["shared_body"] = swiglu(shared * width, bias=bias)
    dense = {"kind": "dense", "body": swiglu(config.whole("intermediate_size"), bias=bias)}
    labels = ["dense"] * first + ["moe"] * (layers - first)
    return arranged(labels, {"dense": {"feedforward": dense}, "moe": {"feedforward": routed}})


def read_sigmoid_router(config: Config) -> dict[str, Any]:
    """Return the settings of a router with sigmoid scores, a selection bias and groups."""
    config.require("scoring_func", "sigmoid", None)
    config.require("topk_method", "noaux_tc", None)
    return {
        "score": "sigmoid",
        "select": read_groups(config, "top_two_sum"),
        "renormalise": config.flag("norm_topk_prob"),
        "scale": config.number("routed_scaling_factor"),
    }


def read_groups(config: Config, score: str) -> Any:
    """Return how experts are selected: from some of their groups, or, from all groups, plainly."""
    groups = config.whole("n_group", 1)
    chosen = config.whole("topk_group", groups)
    if chosen == groups:
        return "top_k"
    return {
        "kind": "group_limited",
        "groups": groups,
        "groups_per_token": chosen,
        "group_score": score,
    }


def write_layers(plain: Plain) -> dict[str, Any]:
    """Return what a configuration says of dense and routed layers and of their router."""
    mixture, width = plain.mixture, plain.expert_width
    select, groups = mixture.router.select, (1, 1)
    if isinstance(select, GroupLimited):
        groups = (select.groups, select.groups_per_token)
    dense = plain.is_routed.index(True) if any(plain.is_routed) else len(plain.plans)
    return {
        "intermediate_size": plain.dense_width or width,
        "moe_intermediate_size": width,
        "first_k_dense_replace": dense,
        "moe_layer_freq": 1,
        "n_routed_experts": mixture.num_experts,
        "n_shared_experts": -(-plain.shared_width // width),
        "num_experts_per_tok": mixture.experts_per_token,
        "n_group": groups[0],
        "topk_group": groups[1],
        "norm_topk_prob": bool(mixture.router.renormalise),
        "routed_scaling_factor": mixture.router.scale,
    }


def pairs_needed(plain: Plain) -> list[str]:
    """Return the complaint of families that rank groups of experts by their two best."""
    few = any(plain.is_routed) and plain.mixture.num_experts < 2
    return ["a single routed expert"] if few else []


def feedforward_rules(
    own: str, foreign: str, layer: FeedForward, width: int, *, biased: bool = False
) -> list[Rule]:
    """Return the rules of a dense or a routed layer.

    Args:
        own: the layer in the decoder.
        foreign: the layer's `mlp`.
        layer: its settings.
        width: of the stream.
        biased: whether its router has a selection bias.
    """
    if isinstance(layer, Dense):
        return gated_rules(f"{own}.body", foreign, bias=layer.body.bias)
    layouts = ((foreign, PER_EXPERT), (foreign, FUSED))
    rules = mixture_rules(own, layer, (f"{foreign}.gate.weight",), *layouts)
    if biased:
        bias = f"{foreign}.gate.e_score_correction_bias"
        rules.append(same(f"{own}.balance.selection_bias", bias, exact=True))
    shared = f"{foreign}.shared_experts"
    if layer.shared_experts:
        bias = getattr(layer.shared(), "bias", False)
        return rules + gated_rules(f"{own}.shared.0", shared, bias=bias)
    return [
        *rules,
        empty(f"{shared}.gate_proj.weight", 0, width),
        empty(f"{shared}.up_proj.weight", 0, width),
        empty(f"{shared}.down_proj.weight", width, 0),
    ]


def read_latent(config: Config) -> dict[str, Any]:
    """Return the settings of multi-head latent attention."""
    heads = config.whole("num_attention_heads")
    config.require("num_key_value_heads", heads, None)
    rank = config.raw("q_lora_rank")
    return {
        "kind": "mla",
        "heads": heads,
        "kv_rank": config.whole("kv_lora_rank"),
        "query_rank": None if rank is None else config.whole("q_lora_rank"),
        "nope_dim": config.whole("qk_nope_head_dim"),
        "rope_dim": config.whole("qk_rope_head_dim"),
        "value_dim": config.whole("v_head_dim"),
        "latent_norm": {"kind": "rms", "epsilon": LATENT_EPSILON},
        "bias": config.flag("attention_bias"),
        "dropout": config.number("attention_dropout", 0.0),
    }


def write_latent(plain: Plain) -> dict[str, Any]:
    """Return what a configuration says of multi-head latent attention."""
    attention = plain.latent
    return {
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.heads,
        "head_dim": attention.rope_dim,
        "kv_lora_rank": attention.kv_rank,
        "q_lora_rank": attention.query_rank,
        "qk_nope_head_dim": attention.nope_dim,
        "qk_rope_head_dim": attention.rope_dim,
        "v_head_dim": attention.value_channels,
        "attention_bias": attention.bias,
        "attention_dropout": attention.dropout,
    }


def latent_rules(own: str, foreign: str, attention: Attention) -> list[Rule]:
    """Return the rules of a layer's normalisation and its multi-head latent attention."""
    assert isinstance(attention, LatentAttention)
    ours, theirs = f"{own}.attention", f"{foreign}.self_attn"
    names = {"kv_down": "kv_a_proj_with_mqa", "kv_up": "kv_b_proj", "output": "o_proj"}
    norms = {"kv_norm": "kv_a_layernorm"}
    if attention.query_rank is None:
        names["query"] = "q_proj"
    else:
        names |= {"query_down": "q_a_proj", "query_up": "q_b_proj"}
        norms["query_norm"] = "q_a_layernorm"
    rules = [
        same(f"{own}.attention_norm.weight", f"{foreign}.input_layernorm.weight"),
        same(f"{own}.feedforward_norm.weight", f"{foreign}.post_attention_layernorm.weight"),
        *(same(f"{ours}.{one}", f"{theirs}.{other}.weight") for one, other in names.items()),
        *(same(f"{ours}.{one}.weight", f"{theirs}.{two}.weight") for one, two in norms.items()),
    ]
    biased = [name for name in ("query_down", "kv_down", "output") if name in names]
    if attention.bias:
        rules += [same(f"{ours}.{each}_bias", f"{theirs}.{names[each]}.bias") for each in biased]
    return rules
