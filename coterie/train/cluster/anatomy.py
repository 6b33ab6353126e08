"""What of a run a layout divides: groups of parameters, layers, heads, experts, widths."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

from coterie.model.attention import Attention
from coterie.model.attention.grouped import GroupedAttention
from coterie.model.experts import MixtureOfExperts
from coterie.train.memory import shadow_parameters
from coterie.train.optimizer import RoleParameter
from coterie.train.settings import RunSettings

_GROUPS = ("dense", "experts", "embedding", "head")


def group_of(name: str) -> str:
    """Return which group a parameter is of, by its name in the decoder."""
    first, _, rest = name.partition(".")
    if first in ("blocks", "mtp"):
        return "experts" if ".feedforward.experts." in rest else "dense"
    return (
        "embedding" if first in ("embedding", "embedding_norm", "position", "additive") else "head"
    )


@dataclass(frozen=True)
class Group:
    """Parameters that a layout treats alike: how many, their optimizer's bytes, most in a block."""

    parameters: int
    state: int
    block: int


@dataclass(frozen=True)
class Anatomy:
    """A run as layouts see it, its vocabulary's size known."""

    settings: RunSettings

    @cached_property
    def groups(self) -> dict[str, Group]:
        """Parameters of blocks, of their routed experts, of what comes before and after."""
        found: defaultdict[str, list[RoleParameter]] = defaultdict(list)
        for each in shadow_parameters(self.settings.model):
            found[group_of(each.name)].append(each)
        state_bytes = self.settings.train.optimizer.state_bytes
        return {name: _group(found[name], state_bytes(found[name])) for name in _GROUPS}

    @cached_property
    def mixtures(self) -> list[MixtureOfExperts]:
        """The routed layers, those of multi-token prediction included."""
        model = self.settings.model
        plans = [*model.plans(), *[model.mtp_plan()] * (model.mtp.depth if model.mtp else 0)]
        return [p.feedforward for p in plans if isinstance(p.feedforward, MixtureOfExperts)]

    @cached_property
    def experts(self) -> int:
        """The number that divides every pack of experts; 0: no layer is routed."""
        return math.gcd(*(pack.count for each in self.mixtures for pack in each.experts))

    @cached_property
    def shared_heads(self) -> int:
        """The number that divides all layers' heads of keys and values."""
        return math.gcd(*(_key_heads(plan.attention) for plan in self.settings.model.plans()))

    @cached_property
    def key_values(self) -> float:
        """Values of keys and values per token as attention reads them, mean over layers."""
        model = self.settings.model
        found = [_key_values(plan.attention, model.width) for plan in model.plans()]
        return sum(found) / len(found)


def _group(parameters: list[RoleParameter], state: int) -> Group:
    blocks: defaultdict[str, int] = defaultdict(int)
    for each in parameters:
        blocks[".".join(each.name.split(".")[:2])] += each.tensor.numel()
    return Group(sum(blocks.values()), state, max(blocks.values(), default=0))


def _key_heads(attention: Attention) -> int:
    return attention.key_heads if isinstance(attention, GroupedAttention) else attention.heads


def _key_values(attention: Attention, width: int) -> int:
    """Return 2 heads · channels; of attention with latents, what it makes of them: 2 widths."""
    if isinstance(attention, GroupedAttention):
        return 2 * attention.key_heads * attention.channels(width)
    return 2 * width
