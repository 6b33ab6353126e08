"""Tensor names of the families after Llama: one map for all of them.

A family whose experts have other names says so by `RoutedNames`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from coterie.exchange.core.tensor_map import (
    Entry,
    ExpertNames,
    copied,
    empty,
    experts,
    halves_swapped,
    same,
)
from coterie.model import DecoderSettings
from coterie.model.attention import Attention, GroupedAttention
from coterie.model.attention.mla import LatentAttention
from coterie.model.blocks import BlockPlan
from coterie.model.experts import MixtureOfExperts
from coterie.model.experts.balance import BiasBalance
from coterie.model.feedforward import Dense

PER_EXPERT = ExpertNames(
    "experts.{e}.gate_proj.weight", "experts.{e}.up_proj.weight", "experts.{e}.down_proj.weight"
)
MODULE_COPIES = ("embed_tokens.weight", "shared_head.head.weight")
"""What an MTP module holds of the model's: its embedding and its head."""
FUSED = ExpertNames("experts.gate_up_proj", "experts.gate_up_proj", "experts.down_proj")


@dataclass(frozen=True)
class RoutedNames:
    """Names of a routed layer's tensors in `model.layers.N`.

    Attributes:
        router: the router's tensor, under its possible names.
        experts: their layouts, the one to write first.
        shared: the shared expert, which has tensors without elements where a layer has none;
            its gate is named after it. None: the family has no shared experts.
    """

    router: tuple[str, ...] = ("mlp.gate.weight",)
    experts: tuple[ExpertNames, ...] = (PER_EXPERT.under("mlp."), FUSED.under("mlp."))
    shared: str | None = None


def tensor_map(settings: DecoderSettings, names: RoutedNames = RoutedNames()) -> list[Entry]:
    """Map a decoder of grouped or latent attention and dense or routed layers."""
    entries = [
        same("embedding.weight", "model.embed_tokens.weight"),
        same("norm.weight", "model.norm.weight"),
    ]
    if not settings.head.tied:
        entries.append(same("head.weight", "lm_head.weight"))
    width = settings.width
    for layer, plan in enumerate(settings.plans()):
        entries += _block(f"blocks.{layer}", f"model.layers.{layer}", plan, names, width)
    for module in range(settings.mtp.depth if settings.mtp else 0):
        own, foreign = f"mtp.{module}", f"model.layers.{settings.layers + module}"
        entries += _block(f"{own}.block", foreign, settings.mtp_plan(), names, width)
        entries += _module(own, foreign, tied=settings.head.tied)
    return entries


def _module(own: str, foreign: str, *, tied: bool) -> list[Entry]:
    """Map an MTP module beside its block; it has the model's embedding and head once more."""
    return [
        same(f"{own}.hidden_norm.weight", f"{foreign}.hnorm.weight"),
        same(f"{own}.token_norm.weight", f"{foreign}.enorm.weight"),
        halves_swapped(f"{own}.projection", f"{foreign}.eh_proj.weight"),
        same(f"{own}.norm.weight", f"{foreign}.shared_head.norm.weight"),
        copied("embedding.weight", f"{foreign}.{MODULE_COPIES[0]}"),
        copied("embedding.weight" if tied else "head.weight", f"{foreign}.{MODULE_COPIES[1]}"),
    ]


def _block(own: str, foreign: str, plan: BlockPlan, names: RoutedNames, width: int) -> list[Entry]:
    entries = [
        same(f"{own}.attention_norm.weight", f"{foreign}.input_layernorm.weight"),
        same(f"{own}.feedforward_norm.weight", f"{foreign}.post_attention_layernorm.weight"),
        *_attention(f"{own}.attention", f"{foreign}.self_attn", plan.attention),
    ]
    own, feedforward = f"{own}.feedforward", plan.feedforward
    if isinstance(feedforward, Dense):
        return entries + _gated(f"{own}.mlp", f"{foreign}.mlp", bias=feedforward.mlp.bias)
    assert isinstance(feedforward, MixtureOfExperts)
    return entries + _routed(own, foreign, feedforward, names, width)


def tensor_map_with(names: RoutedNames) -> Callable[[DecoderSettings], list[Entry]]:
    """Return `tensor_map` under other names of a routed layer's tensors."""
    return lambda settings: tensor_map(settings, names)


def _attention(own: str, foreign: str, attention: Attention) -> list[Entry]:
    if isinstance(attention, LatentAttention):
        return _latent(own, foreign, attention)
    assert isinstance(attention, GroupedAttention)
    entries = []
    for ours, theirs in _GROUPED.items():
        entries.append(same(f"{own}.{ours}", f"{foreign}.{theirs}.weight"))
        if attention.bias is True or (attention.bias == "qkv" and ours != "output"):
            entries.append(same(f"{own}.{ours}_bias", f"{foreign}.{theirs}.bias"))
    if attention.query_key_norm is not None:
        for ours, theirs in (("query", "q_norm"), ("key", "k_norm")):
            entries.append(same(f"{own}.{ours}_norm.weight", f"{foreign}.{theirs}.weight"))
    return entries


_GROUPED = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj"}


def _latent(own: str, foreign: str, attention: LatentAttention) -> list[Entry]:
    names = {"kv_down": "kv_a_proj_with_mqa", "kv_up": "kv_b_proj", "output": "o_proj"}
    norms = {"kv_norm": "kv_a_layernorm"}
    if attention.query_rank is None:
        names["query"] = "q_proj"
    else:
        names |= {"query_down": "q_a_proj", "query_up": "q_b_proj"}
        norms["query_norm"] = "q_a_layernorm"
    entries = [
        *(same(f"{own}.{x}", f"{foreign}.{theirs}.weight") for x, theirs in names.items()),
        *(same(f"{own}.{x}.weight", f"{foreign}.{theirs}.weight") for x, theirs in norms.items()),
    ]
    if attention.bias:
        biased = [name for name in ("query_down", "kv_down", "output") if name in names]
        entries += [same(f"{own}.{each}_bias", f"{foreign}.{names[each]}.bias") for each in biased]
    return entries


def _gated(own: str, foreign: str, *, bias: bool = False) -> list[Entry]:
    entries = []
    for name in ("gate", "up", "down"):
        entries.append(same(f"{own}.{name}", f"{foreign}.{name}_proj.weight"))
        if bias:
            entries.append(same(f"{own}.{name}_bias", f"{foreign}.{name}_proj.bias"))
    return entries


def _routed(
    own: str, foreign: str, mixture: MixtureOfExperts, names: RoutedNames, width: int
) -> list[Entry]:
    layouts = (each.under(f"{foreign}.") for each in names.experts)
    entries = [
        same(f"{own}.router.weight", *(f"{foreign}.{name}" for name in names.router)),
        *experts(f"{own}.experts.0", mixture.num_experts, *layouts),
    ]
    if isinstance(mixture.balance, BiasBalance):
        bias = f"{foreign}.mlp.gate.e_score_correction_bias"
        entries.append(same(f"{own}.balance.selection_bias", bias, exact=True))
    if names.shared is None:
        return entries
    shared = f"{foreign}.{names.shared}"
    if not mixture.shared_experts:
        sizes = {"gate": (0, width), "up": (0, width), "down": (width, 0)}
        return entries + [empty(f"{shared}.{x}_proj.weight", *size) for x, size in sizes.items()]
    bias = getattr(mixture.shared(), "bias", False)
    entries += _gated(f"{own}.shared.0", shared, bias=bias)
    if mixture.shared_gate:
        entries.append(same(f"{own}.shared_gate.weight", f"{shared}_gate.weight"))
    return entries
