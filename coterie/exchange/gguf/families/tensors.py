"""Tensor names of the architectures after Llama: one map for all of them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from coterie.exchange.core.tensor_map import Entry, ExpertNames, Layout, experts, same
from coterie.model import DecoderSettings
from coterie.model.attention import GroupedAttention
from coterie.model.attention.mla import LatentAttention
from coterie.model.experts import MixtureOfExperts
from coterie.model.experts.balance import BiasBalance
from coterie.model.position import RotaryPosition

# All experts of a matrix are in one tensor; files from before 2024 have a tensor for each.
_EXPERTS = (
    ExpertNames("ffn_gate_exps.weight", "ffn_up_exps.weight", "ffn_down_exps.weight"),
    ExpertNames("ffn_gate.{e}.weight", "ffn_up.{e}.weight", "ffn_down.{e}.weight"),
)
_GROUPED = {"query": "q", "key": "k", "value": "v", "output": "output"}


def tensor_map(settings: DecoderSettings, *, interleaved: bool = False) -> list[Entry]:
    """Map a decoder of grouped or latent attention and dense or routed layers.

    Args:
        settings: of the decoder; grouped attention pairs the halves of a head.
        interleaved: whether programs that load the file pair neighbouring channels instead.
    """
    entries = [
        same("embedding.weight", "token_embd.weight"),
        same("norm.weight", "output_norm.weight", exact=True),
    ]
    if not settings.head.tied:
        entries.append(same("head.weight", "output.weight"))
    for layer, plan in enumerate(settings.plans()):
        own, foreign = f"blocks.{layer}", f"blk.{layer}"
        for name, theirs in (("attention", "attn_norm"), ("feedforward", "ffn_norm")):
            entries.append(
                same(f"{own}.{name}_norm.weight", f"{foreign}.{theirs}.weight", exact=True)
            )
        if isinstance(plan.attention, LatentAttention):
            entries += _latent(f"{own}.attention", foreign, plan.attention)
        else:
            assert isinstance(plan.attention, GroupedAttention)
            entries += _grouped(settings, own, foreign, plan.attention, interleaved=interleaved)
        own, feedforward = f"{own}.feedforward", plan.feedforward
        if isinstance(feedforward, MixtureOfExperts):
            entries += _routed(own, foreign, feedforward)
        else:
            bias = feedforward.mlp.bias
            entries += _gated(f"{own}.mlp", f"{foreign}.ffn_{{}}", bias=bias)
    return entries


def _grouped(
    settings: DecoderSettings,
    own: str,
    foreign: str,
    attention: GroupedAttention,
    *,
    interleaved: bool,
) -> list[Entry]:
    own, foreign = f"{own}.attention", f"{foreign}.attn"
    channels = attention.channels(settings.width)
    position = settings.position
    assert isinstance(position, RotaryPosition)
    reordered = position.rotated(channels) if interleaved else 0
    entries = []
    for ours, theirs in _GROUPED.items():
        rotated = reordered if ours in ("query", "key") else 0
        entries.append(_rows(f"{own}.{ours}", f"{foreign}_{theirs}.weight", channels, rotated))
        if attention.bias is True or (attention.bias == "qkv" and ours != "output"):
            names = f"{own}.{ours}_bias", f"{foreign}_{theirs}.bias"
            entries.append(_rows(*names, channels, rotated, exact=True))
        if attention.query_key_norm is not None and ours in ("query", "key"):
            names = f"{own}.{ours}_norm.weight", f"{foreign}_{theirs}_norm.weight"
            entries.append(_rows(*names, channels, rotated, exact=True))
    return entries


def _rows(own: str, foreign: str, channels: int, rotated: int, *, exact: bool = False) -> Entry:
    """Map rows [heads · channels, …]; the first `rotated` of a head pair neighbours there."""
    if not rotated:
        return same(own, foreign, exact=exact)

    def order() -> Tensor:
        """Return our rows of a head in foreign order: the two of a pair beside each other."""
        halves = torch.arange(rotated).view(2, -1)
        return torch.cat((halves.T.flatten(), torch.arange(rotated, channels)))

    layout = Layout(
        (foreign,),
        lambda found, _: [_by_head(found[0], order().argsort())],
        # Of a meta tensor only the shape counts, which stays.
        lambda ours: [ours[0] if ours[0].is_meta else _by_head(ours[0], order())],
    )
    return Entry((own,), (layout,), exact)


def _by_head(rows: Tensor, order: Tensor) -> Tensor:
    return rows.unflatten(0, (-1, len(order)))[:, order].flatten(0, 1)


def _latent(own: str, foreign: str, mla: LatentAttention) -> list[Entry]:
    entries = [
        same(f"{own}.kv_down", f"{foreign}.attn_kv_a_mqa.weight"),
        same(f"{own}.kv_norm.weight", f"{foreign}.attn_kv_a_norm.weight", exact=True),
        _up_projection(f"{own}.kv_up", foreign, mla),
        same(f"{own}.output", f"{foreign}.attn_output.weight"),
    ]
    if mla.query_rank is None:
        return [*entries, same(f"{own}.query", f"{foreign}.attn_q.weight")]
    return [
        *entries,
        same(f"{own}.query_down", f"{foreign}.attn_q_a.weight"),
        same(f"{own}.query_norm.weight", f"{foreign}.attn_q_a_norm.weight", exact=True),
        same(f"{own}.query_up", f"{foreign}.attn_q_b.weight"),
    ]


def _up_projection(own: str, foreign: str, mla: LatentAttention) -> Entry:
    """Map the matrix that projects the latent up: for each head its key's rows, then its value's.

    Newer files hold two tensors, keys [H, L, N] (transposed for the absorbed form) and values
    [H, V, L]; older files hold the matrix.
    """
    sizes = (mla.nope_dim, mla.value_channels)

    def to_own(found: list[Tensor], shapes: Sequence[torch.Size]) -> list[Tensor]:
        key, value = found
        return [torch.cat((key.mT, value), dim=1).flatten(0, 1)]

    def to_foreign(ours: list[Tensor]) -> list[Tensor]:
        key, value = ours[0].unflatten(0, (mla.heads, -1)).split(sizes, dim=1)
        return [key.mT, value]

    apart = Layout((f"{foreign}.attn_k_b.weight", f"{foreign}.attn_v_b.weight"), to_own, to_foreign)
    whole = same(own, f"{foreign}.attn_kv_b.weight").layouts[0]
    return Entry((own,), (apart, whole))


def _gated(own: str, foreign: str, *, bias: bool = False) -> list[Entry]:
    """Map a gated layer or expert; {} in `foreign` stands for the matrix's name."""
    entries = []
    for name in ("gate", "up", "down"):
        theirs = foreign.format(name)
        entries.append(same(f"{own}.{name}", f"{theirs}.weight"))
        if bias:
            entries.append(same(f"{own}.{name}_bias", f"{theirs}.bias", exact=True))
    return entries


def _routed(own: str, foreign: str, mixture: MixtureOfExperts) -> list[Entry]:
    layouts = (each.under(f"{foreign}.") for each in _EXPERTS)
    entries = [
        same(f"{own}.router.weight", f"{foreign}.ffn_gate_inp.weight", exact=True),
        *experts(f"{own}.experts.0", mixture.num_experts, *layouts),
    ]
    if isinstance(mixture.balance, BiasBalance):
        bias = f"{own}.balance.selection_bias"
        entries.append(same(bias, f"{foreign}.exp_probs_b.bias", exact=True))
    if mixture.shared_experts:
        entries += _gated(f"{own}.shared.0", f"{foreign}.ffn_{{}}_shexp")
    if mixture.shared_experts and mixture.shared_gate:
        gate = Layout(
            (f"{foreign}.ffn_gate_inp_shexp.weight",),
            lambda found, shapes: [found[0].reshape(shapes[0])],
            lambda ours: [ours[0].flatten()],
        )
        entries.append(Entry((f"{own}.shared_gate.weight",), (gate,), exact=True))
    return entries
