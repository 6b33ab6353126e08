"""What a step asks of an objective, and what it gets.

The loss of a step is Σ coefficient · total / count over the objective's terms, where totals and
counts are sums over the whole batch: however it is cut into micro-batches, and on however many
devices, the mean is the same. So an objective returns sums, and the step divides them.

Settings of an objective have a `kind` and `build(model)`, which returns an `Objective` for a
decoder of those settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from coterie.batch import TokenBatch
from coterie.model import Output, RouterStats


@dataclass(frozen=True)
class Models:
    """The models of a step by name; an objective that needs others extends this class.

    Attributes:
        decoder: the one that the optimizer moves, or a compiled form of it.
    """

    decoder: Callable[..., Output]


@dataclass(frozen=True)
class Term:
    """A summand of the loss.

    Attributes:
        name: under which it is reported, summed with others of that name. `loss` is what a run
            reports as its loss, so every objective has it.
        total: summed over the micro-batch, differentiable, at least float32.
        count: which of the objective's counts divides it.
        coefficient: what the quotient is multiplied by.
    """

    name: str
    total: Float[Tensor, ""]
    count: str
    coefficient: float = 1.0


@dataclass(frozen=True)
class Terms:
    """What an objective makes of one micro-batch.

    Attributes:
        terms: the summands of the loss.
        router_stats: of the routed layers of the decoder, whose balances learn from them.
        rows: [3, B], detached: the source of each row, its loss added up, and what that is divided
            by; None where no sources are mixed.
    """

    terms: tuple[Term, ...]
    router_stats: tuple[RouterStats, ...] = ()
    rows: Float[Tensor, "3 B"] | None = None


class Objective(Protocol):
    """What a step minimises. Pure: it keeps nothing from one call to the next."""

    def counts(self, batch: TokenBatch) -> Mapping[str, Tensor]:
        """Return what totals of this micro-batch are divided by, each to be summed over all.

        It must not wait for the device.
        """
        ...

    def __call__(self, models: Models, batch: TokenBatch) -> Terms:
        """Run the forward passes of one micro-batch and return its terms."""
        ...
