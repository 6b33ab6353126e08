"""What DeepSeek-V2, DeepSeek-V3 and Glm4-MoE share: first dense, then routed layers with shared
experts, and multi-head latent attention.
"""

from typing import Any

from coterie.exchange.core.canonical import Canonical
from coterie.exchange.core.layers import block_pattern, dense, routed
from coterie.exchange.huggingface.config import Config
from coterie.exchange.huggingface.families.tensors import RoutedNames, tensor_map_with
from coterie.model.experts.select import GroupLimited

tensor_map = tensor_map_with(RoutedNames(shared="mlp.shared_experts"))
MODULES = "num_nextn_predict_layers"
LATENT_EPSILON = 1e-6  # of the norms of latents, whatever rms_norm_eps is


def read_layers(
    config: Config, router: dict[str, Any], balance: str = "none", *, bias: bool = False
) -> dict[str, Any]:
    """Return the settings of all layers: `first_k_dense_replace` dense ones, then routed ones.

    MTP modules go on from there.

    Args:
        bias: whether dense layers and shared experts have biases.
    """
    config.require("moe_layer_freq", 1, None)
    layers = config.whole("num_hidden_layers")
    depth = config.count(MODULES, 0, least=0)
    first = min(config.whole("first_k_dense_replace", 0, least=0), layers + depth)
    width = config.whole("moe_intermediate_size")
    mixture = routed(
        config.count("n_routed_experts"),
        width,
        config.whole("num_experts_per_tok"),
        router=router,
        balance=balance,
        shared=config.count("n_shared_experts", 0, least=0) * width,
        shared_bias=bias,
    )
    blocks = {
        "dense": {"feedforward": dense(config.whole("intermediate_size"), bias=bias)},
        "moe": {"feedforward": mixture},
    }
    labels = ["dense"] * first + ["moe"] * (layers + depth - first)
    given = block_pattern(labels[:layers], blocks)
    if not depth:
        return given
    module = {"depth": depth, "normalised": True}
    if len(set(labels[layers:])) > 1:
        config.refuse(f"first_k_dense_replace is {first}, so that the MTP modules would differ")
    if labels[layers] != labels[layers - 1]:
        given["blocks"] = {labels[layers]: blocks[labels[layers]]}
        module["block"] = labels[layers]
    return given | {"mtp": module}


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
    """Return how experts are selected: from some of their groups, or plainly from all of them."""
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


def write_sigmoid_router(model: Canonical) -> dict[str, Any]:
    """Return what config.json says of that router and the MTP modules beside it.

    Where it is silent on scores, vLLM assumes softmax.
    """
    mtp = model.settings.mtp
    return {
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        MODULES: 0 if mtp is None else mtp.depth,
    }


def write_layers(model: Canonical) -> dict[str, Any]:
    """Return what config.json says of dense and routed layers and of their router."""
    mixture, width = model.mixture, model.expert_width
    select, groups = mixture.router.select, (1, 1)
    if isinstance(select, GroupLimited):
        groups = (select.groups, select.groups_per_token)
    dense = model.is_routed.index(True) if any(model.is_routed) else len(model.plans)
    return {
        "intermediate_size": model.dense_width or width,
        "moe_intermediate_size": width,
        "first_k_dense_replace": dense,
        "moe_layer_freq": 1,
        "n_routed_experts": mixture.num_experts,
        "n_shared_experts": -(-model.shared_width // width),
        "num_experts_per_tok": mixture.experts_per_token,
        "n_group": groups[0],
        "topk_group": groups[1],
        "norm_topk_prob": bool(mixture.router.renormalise),
        "routed_scaling_factor": mixture.router.scale,
    }


def pairs_needed(model: Canonical) -> list[str]:
    """Refuse a single routed expert: the groups are ranked by their two best."""
    few = any(model.is_routed) and model.mixture.num_experts < 2
    return ["a single routed expert"] if few else []


def read_latent(config: Config) -> dict[str, Any]:
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


def write_latent(model: Canonical) -> dict[str, Any]:
    attention = model.latent
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
