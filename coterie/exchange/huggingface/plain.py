"""A model's settings in their plainest form: defaults resolved, layer by layer, packs joined.

Exact simplifications only. Packs of one kind of expert become a single pack as wide as the widest
(zero rows add nothing), shared experts one body as wide as all together. What families write and
what fits them is decided on this form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from coterie.model import DecoderSettings, ExpertPack
from coterie.model.attention import GroupedAttention
from coterie.model.attention.mla import LatentAttention
from coterie.model.blocks import BlockPlan
from coterie.model.experts import MixtureOfExperts
from coterie.model.experts.bodies import GELU, ExpertBody, GeGLU, SquaredReLU, SwiGLU
from coterie.model.experts.select import GroupLimited, TopK
from coterie.model.feedforward import Dense
from coterie.model.norm import LayerNorm, RMSNorm
from coterie.model.position import Position, RotaryPosition
from coterie.model.position.scaling import NoScaling, NTKScaling, YarnScaling


@dataclass(frozen=True)
class Plain:
    """Settings of a decoder with every layer written out.

    Attributes:
        settings: the decoder's.
        plans: its layers in their plainest form.
        position: its positions in their plainest form.
        biased: for each layer, whether a selection bias changes its routing.
    """

    settings: DecoderSettings
    plans: tuple[BlockPlan, ...]
    position: Position
    biased: tuple[bool, ...]

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding."""
        return self.settings.known_vocab_size()

    @property
    def rotary(self) -> RotaryPosition:
        """The rotary positions, or the usual ones where the model has others."""
        return self.position if isinstance(self.position, RotaryPosition) else RotaryPosition()

    @property
    def dropout(self) -> float:
        """The share of the stream's updates dropped in training, of whatever kind."""
        return float(getattr(self.settings.dropout, "rate", 0.0))

    @property
    def grouped(self) -> GroupedAttention:
        """The first grouped-query attention, or the usual one where there is none."""
        found = (x.attention for x in self.plans if isinstance(x.attention, GroupedAttention))
        return next(found, GroupedAttention(heads=1, kv_heads=1, head_dim=self.settings.width))

    @property
    def epsilon(self) -> float:
        """What the normalisation adds to the mean square."""
        norm = self.settings.norm
        return norm.epsilon if isinstance(norm, RMSNorm | LayerNorm) else 1e-6

    @property
    def latent(self) -> LatentAttention:
        """The first multi-head latent attention, or the least one where there is none."""
        found = (x.attention for x in self.plans if isinstance(x.attention, LatentAttention))
        return next(found, LatentAttention(heads=1, kv_rank=1, nope_dim=1, rope_dim=2, value_dim=1))

    @property
    def mixture(self) -> MixtureOfExperts:
        """The first routed layer, or the least one where there is none."""
        found = (x.feedforward for x in self.plans if isinstance(x.feedforward, MixtureOfExperts))
        least = MixtureOfExperts(experts=(ExpertPack(count=1),), experts_per_token=1)
        return next(found, least)

    @property
    def is_routed(self) -> tuple[bool, ...]:
        """For each layer, whether it has experts."""
        return tuple(isinstance(x.feedforward, MixtureOfExperts) for x in self.plans)

    @property
    def dense_width(self) -> int | None:
        """Hidden channels of the widest dense layer; None where there is none."""
        bodies = [x.feedforward.body for x in self.plans if isinstance(x.feedforward, Dense)]
        return max((body.hidden(self.settings.width) for body in bodies), default=None)

    @property
    def expert_width(self) -> int:
        """Hidden channels of the widest routed expert."""
        width = self.settings.width
        found = [
            pack.body.hidden(width) or 0
            for plan in self.plans
            if isinstance(plan.feedforward, MixtureOfExperts)
            for pack in plan.feedforward.experts
        ]
        return max(found, default=1) or 1

    @property
    def shared_width(self) -> int:
        """Hidden channels of the widest layer's shared experts together; 0 where there are none."""
        width = self.settings.width
        found = [
            (plan.feedforward.shared().hidden(width) or 0) * plan.feedforward.shared_experts
            for plan in self.plans
            if isinstance(plan.feedforward, MixtureOfExperts)
        ]
        return max(found, default=0)


def plain(settings: DecoderSettings, biased: Sequence[bool] | None = None) -> Plain:
    """Return settings in their plainest form.

    Args:
        settings: of a decoder.
        biased: for each layer, whether its selection bias is in use; None: wherever it has one.
    """
    plans = tuple(_plain_plan(plan, settings.width) for plan in settings.plans())
    if biased is None:
        biased = [_has_bias(plan) for plan in plans]
    return Plain(settings, plans, _plain_position(settings), tuple(biased))


def _plain_position(settings: DecoderSettings) -> Position:
    """Return positions with the factors of a scaling resolved; another base is said as that."""
    position = settings.position
    if not isinstance(position, RotaryPosition):
        return position
    scaling = position.scaling
    if isinstance(scaling, YarnScaling):
        factors = {"attention_factor": scaling.turn_scale, "logit_factor": scaling.logit_scale}
        return position.model_copy(update={"scaling": scaling.model_copy(update=factors)})
    channels = {plan.attention.channels(settings.width) for plan in settings.plans()}
    if isinstance(scaling, NTKScaling) and len(channels) == 1:
        theta = scaling.base(position.theta, position.turned(channels.pop()))
        return position.model_copy(update={"theta": theta, "scaling": NoScaling()})
    return position


def _has_bias(plan: BlockPlan) -> bool:
    layer = plan.feedforward
    if not isinstance(layer, MixtureOfExperts):
        return False
    return layer.balance.build(layer.num_experts).selection_bias is not None


def _plain_plan(plan: BlockPlan, width: int) -> BlockPlan:
    attention, layer = plan.attention, plan.feedforward
    if isinstance(attention, GroupedAttention):
        resolved = {"kv_heads": attention.key_heads, "head_dim": attention.channels(width)}
        attention = attention.model_copy(update=resolved)
    elif isinstance(attention, LatentAttention):
        attention = attention.model_copy(update={"value_dim": attention.value_channels})
    if isinstance(layer, Dense):
        layer = layer.model_copy(update={"body": _sized(layer.body, layer.body.hidden(width))})
    elif isinstance(layer, MixtureOfExperts):
        layer = _plain_mixture(layer, width)
    return replace(plan, attention=attention, feedforward=layer)


def _plain_mixture(layer: MixtureOfExperts, width: int) -> MixtureOfExperts:
    renormalise = layer.router.renormalise
    if renormalise is None:
        renormalise = layer.experts_per_token > 1
    select = layer.router.select
    if isinstance(select, GroupLimited) and select.groups_per_token == select.groups:
        select = TopK()  # every group is open
    router = {"renormalise": renormalise, "select": select}
    shared = layer.shared()
    together = layer.shared_experts * (shared.hidden(width) or 0)
    return layer.model_copy(
        update={
            "experts": _joined_packs(layer.experts, width),
            "shared_experts": min(layer.shared_experts, 1),
            "shared_body": _sized(shared, together) if together else None,
            "router": layer.router.model_copy(update=router),
        }
    )


def _joined_packs(packs: tuple[ExpertPack, ...], width: int) -> tuple[ExpertPack, ...]:
    """Return a single pack of all experts if they differ in width alone."""
    widest = max(pack.body.hidden(width) or 0 for pack in packs)
    bodies = [_sized(pack.body, widest) for pack in packs]
    if all(body == bodies[0] for body in bodies):
        return (ExpertPack(body=bodies[0], count=sum(pack.count for pack in packs)),)
    return packs


def _sized(body: ExpertBody, hidden: int) -> ExpertBody:
    """Return a body of another hidden width; one whose width says something else is left alone."""
    known = isinstance(body, SwiGLU | GeGLU | GELU | SquaredReLU)
    return body.model_copy(update={"width": hidden}) if known else body


def swiglu(hidden: int, *, bias: bool = False) -> dict[str, Any]:
    """Return the settings of a SwiGLU body as plain values."""
    return SwiGLU(width=hidden, bias=bias).model_dump()


def arranged(labels: Sequence[str], blocks: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the settings that give every layer the block of its label.

    Args:
        labels: of the layers, from the bottom up.
        blocks: what each label means.
    """
    last = labels[-1]
    first = len(labels)
    while first and labels[first - 1] == last:
        first -= 1
    if first == 0:
        return dict(blocks[last])
    used = {label: blocks[label] for label in dict.fromkeys(labels)}
    return {"blocks": used, "opening": tuple(labels[:first]), "pattern": (last,)}
