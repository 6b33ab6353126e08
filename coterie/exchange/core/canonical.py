"""A model's settings in canonical form: defaults resolved, layer by layer, packs joined.

Exact simplifications only. Packs of one kind of expert become a single pack as wide as the widest
(zero rows add nothing), shared experts become one of their joint width. Families write from this
form, and matching compares it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from coterie.model import DecoderSettings, ExpertPack
from coterie.model.attention import GroupedAttention
from coterie.model.attention.mla import LatentAttention
from coterie.model.blocks import BlockPlan
from coterie.model.experts import MixtureOfExperts
from coterie.model.experts.select import GroupLimited, TopK
from coterie.model.feedforward import Dense
from coterie.model.mlp import ExpertMLP, GatedMLP, PlainMLP
from coterie.model.norm import LayerNorm, RMSNorm
from coterie.model.position import Position, RotaryPosition
from coterie.model.position.scaling import NoScaling, NTKScaling, YarnScaling


@dataclass(frozen=True)
class Canonical:
    """Settings of a decoder with every layer written out.

    Attributes:
        settings: the decoder's.
        plans: its layers in canonical form, and after them the blocks of its MTP modules.
        position: its positions in canonical form.
        biased: for each of these, whether a selection bias changes its routing.
    """

    settings: DecoderSettings
    plans: tuple[BlockPlan, ...]
    position: Position
    biased: tuple[bool, ...]

    @property
    def vocab_size(self) -> int:
        return self.settings.known_vocab_size()

    @property
    def rotary(self) -> RotaryPosition:
        """The rotary positions, or the default ones where the model has others."""
        return self.position if isinstance(self.position, RotaryPosition) else RotaryPosition()

    @property
    def dropout(self) -> float:
        """The dropout rate of the residual stream's updates, of any kind."""
        return float(getattr(self.settings.dropout, "rate", 0.0))

    @property
    def grouped(self) -> GroupedAttention:
        """The first grouped-query attention, or a placeholder where there is none."""
        found = (x.attention for x in self.plans if isinstance(x.attention, GroupedAttention))
        return next(found, GroupedAttention(heads=1, kv_heads=1, head_dim=self.settings.width))

    @property
    def epsilon(self) -> float:
        """What the normalisation adds to the mean square or variance."""
        norm = self.settings.norm
        return norm.epsilon if isinstance(norm, RMSNorm | LayerNorm) else 1e-6

    @property
    def latent(self) -> LatentAttention:
        """The first multi-head latent attention, or a placeholder where there is none."""
        found = (x.attention for x in self.plans if isinstance(x.attention, LatentAttention))
        return next(found, LatentAttention(heads=1, kv_rank=1, nope_dim=1, rope_dim=2, value_dim=1))

    @property
    def mixture(self) -> MixtureOfExperts:
        """The first routed layer, or a placeholder where there is none."""
        found = (x.feedforward for x in self.plans if isinstance(x.feedforward, MixtureOfExperts))
        least = MixtureOfExperts(experts=(ExpertPack(count=1),), experts_per_token=1)
        return next(found, least)

    @property
    def is_routed(self) -> tuple[bool, ...]:
        return tuple(isinstance(x.feedforward, MixtureOfExperts) for x in self.plans)

    @property
    def dense_width(self) -> int | None:
        """Hidden channels of the widest dense layer; None where there is none."""
        mlps = [x.feedforward.mlp for x in self.plans if isinstance(x.feedforward, Dense)]
        return max((mlp.hidden(self.settings.width) for mlp in mlps), default=None)

    @property
    def dense_bias(self) -> bool:
        """Whether any dense layer or shared expert has biases."""
        layers = [plan.feedforward for plan in self.plans]
        mlps = [x.mlp for x in layers if isinstance(x, Dense)]
        mlps += [x.shared() for x in layers if isinstance(x, MixtureOfExperts) and x.shared_experts]
        return any(getattr(mlp, "bias", False) for mlp in mlps)

    @property
    def expert_width(self) -> int:
        """Hidden channels of the widest routed expert."""
        width = self.settings.width
        found = [
            pack.mlp.hidden(width) or 0
            for plan in self.plans
            if isinstance(plan.feedforward, MixtureOfExperts)
            for pack in plan.feedforward.experts
        ]
        return max(found, default=1) or 1

    @property
    def shared_width(self) -> int:
        """The largest joint width of a layer's shared experts; 0 where there are none."""
        width = self.settings.width
        found = [
            (plan.feedforward.shared().hidden(width) or 0) * plan.feedforward.shared_experts
            for plan in self.plans
            if isinstance(plan.feedforward, MixtureOfExperts)
        ]
        return max(found, default=0)


def canonical(settings: DecoderSettings, biased: Sequence[bool] | None = None) -> Canonical:
    """Return settings in canonical form.

    Args:
        biased: for each layer and MTP module, whether its selection bias is in use; None: wherever
            it has one.
    """
    further = (settings.mtp_plan(),) * (settings.mtp.depth if settings.mtp else 0)
    every = (*settings.plans(), *further)
    plans = tuple(_canonical_plan(plan, settings.width) for plan in every)
    if biased is None:
        biased = [_has_bias(plan) for plan in plans]
    return Canonical(settings, plans, _canonical_position(settings), tuple(biased))


def _canonical_position(settings: DecoderSettings) -> Position:
    """Return positions with the factors of a scaling resolved; NTK becomes the base it implies."""
    position = settings.position
    if not isinstance(position, RotaryPosition):
        return position
    scaling = position.scaling
    if isinstance(scaling, YarnScaling):
        factors = {"attention_factor": scaling.turn_scale, "logit_factor": scaling.logit_scale}
        return position.model_copy(update={"scaling": scaling.model_copy(update=factors)})
    channels = {plan.attention.channels(settings.width) for plan in settings.plans()}
    if isinstance(scaling, NTKScaling) and len(channels) == 1:
        theta = scaling.base(position.theta, position.rotated(channels.pop()))
        return position.model_copy(update={"theta": theta, "scaling": NoScaling()})
    return position


def _has_bias(plan: BlockPlan) -> bool:
    layer = plan.feedforward
    if not isinstance(layer, MixtureOfExperts):
        return False
    return layer.balance.build(layer.num_experts).selection_bias is not None


def _canonical_plan(plan: BlockPlan, width: int) -> BlockPlan:
    attention, layer = plan.attention, plan.feedforward
    if isinstance(attention, GroupedAttention):
        resolved = {"kv_heads": attention.key_heads, "head_dim": attention.channels(width)}
        attention = attention.model_copy(update=resolved)
    elif isinstance(attention, LatentAttention):
        attention = attention.model_copy(update={"value_dim": attention.value_channels})
    if isinstance(layer, Dense):
        layer = layer.model_copy(update={"mlp": _sized(layer.mlp, layer.mlp.hidden(width))})
    elif isinstance(layer, MixtureOfExperts):
        layer = _canonical_mixture(layer, width)
    return replace(plan, attention=attention, feedforward=layer)


def _canonical_mixture(layer: MixtureOfExperts, width: int) -> MixtureOfExperts:
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
            "shared_mlp": _sized(shared, together) if together else None,
            "router": layer.router.model_copy(update=router),
        }
    )


def _joined_packs(packs: tuple[ExpertPack, ...], width: int) -> tuple[ExpertPack, ...]:
    """Return a single pack of all experts if they differ in width alone, else the packs."""
    widest = max(pack.mlp.hidden(width) or 0 for pack in packs)
    mlps = [_sized(pack.mlp, widest) for pack in packs]
    if all(mlp == mlps[0] for mlp in mlps):
        return (ExpertPack(mlp=mlps[0], count=sum(pack.count for pack in packs)),)
    return packs


def _sized(mlp: ExpertMLP, hidden: int) -> ExpertMLP:
    """Return an MLP of another hidden width; kinds whose width means something else are kept."""
    known = isinstance(mlp, GatedMLP | PlainMLP)
    return mlp.model_copy(update={"width": hidden}) if known else mlp
