"""The health of routing: how evenly the tokens are spread over each layer's experts.

Judged by real load and layer by layer: an auxiliary loss can look fine while one expert takes all,
and a mean over layers hides the sick one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from coterie.model import RouterStats

DEAD_SHARE = 0.01
"""An expert counts as dead when it receives less than this share of an even load."""


@dataclass(frozen=True)
class RoutingHealth:
    """How one layer spread its tokens.

    Attributes:
        layer: its index in the decoder.
        load: (token, expert) pairs selected of each expert.
        dropped: how many of those found no room.
        tokens: how many tokens were routed.
    """

    layer: int
    load: tuple[int, ...]
    dropped: int = 0
    tokens: int = 0

    @property
    def mean(self) -> float:
        """The even load."""
        return sum(self.load) / len(self.load)

    @property
    def imbalance(self) -> float:
        """max / mean − 1: 0 when even, E − 1 when one expert of E takes all."""
        return max(self.load) / self.mean - 1 if sum(self.load) else 0.0

    @property
    def entropy(self) -> float:
        """Entropy of the load over that of an even one: 1 when even, 0 when one takes all."""
        total = sum(self.load)
        if len(self.load) < 2 or not total:
            return 1.0
        shares = [count / total for count in self.load if count]
        return -sum(share * math.log(share) for share in shares) / math.log(len(self.load))

    @property
    def utilisation(self) -> float:
        """Effective share of experts in use: exp(entropy of the load, in nats) / E.

        1 when the load is even; n / E when n experts share it evenly and the others get nothing.
        """
        experts = len(self.load)
        return experts ** (self.entropy - 1)

    @property
    def experts_per_token(self) -> float:
        """Experts that a token selected, on average."""
        return sum(self.load) / self.tokens if self.tokens else 0.0

    @property
    def dead(self) -> float:
        """Share of experts that received less than a hundredth of an even load."""
        return sum(count < DEAD_SHARE * self.mean for count in self.load) / len(self.load)


class LoadCounter:
    """Sums the routing of many batches by layer, on their device until somebody asks."""

    def __init__(self) -> None:
        self._loads: dict[int, Int[Tensor, " E"]] = {}
        self._dropped: dict[int, Tensor | int] = {}
        self._tokens: dict[int, Tensor | int] = {}

    def add(self, routing: Sequence[RouterStats]) -> None:
        """Count one batch."""
        for each in routing:
            before = self._loads.get(each.layer)
            self._loads[each.layer] = each.load if before is None else before + each.load
            self._dropped[each.layer] = self._dropped.get(each.layer, 0) + each.dropped
            self._tokens[each.layer] = self._tokens.get(each.layer, 0) + each.tokens

    def sums(self) -> list[Tensor]:
        """Return what was counted, layer by layer, for whoever adds up those of processes."""
        held = (self._loads, self._dropped, self._tokens)
        return [torch.as_tensor(each[layer]) for each in held for layer in sorted(each)]

    def set_sums(self, sums: Sequence[Tensor]) -> None:
        """Take what `sums` returned back, added up."""
        read = iter(sums)
        for each in (self._loads, self._dropped, self._tokens):
            each.update({layer: next(read) for layer in sorted(each)})

    def health(self) -> tuple[RoutingHealth, ...]:
        """Return the layers' health, from the bottom up."""
        return tuple(
            RoutingHealth(
                layer, tuple(load.tolist()), int(self._dropped[layer]), int(self._tokens[layer])
            )
            for layer, load in sorted(self._loads.items())
        )


def mean_utilisation(health: Sequence[RoutingHealth]) -> float:
    """Return the layers' utilisation, averaged; 1 where nothing is routed."""
    return sum(each.utilisation for each in health) / len(health) if health else 1.0
