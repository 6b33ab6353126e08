"""Sources in a fixed ratio: what all mixers here share. They differ in the weights alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from coterie.data.mix.order import Order
from coterie.data.mix.protocol import Share, Source, part_of
from coterie.foundation.errors import DataError
from coterie.foundation.settings import Settings


class Ratio(Settings):
    """Base of the mixers: a ratio that holds to within one row at every prefix."""

    epochs_at_most: float | None = Field(
        default=None,
        gt=0,
        description="how many times a source is read at most; the others then go on without it",
    )

    def weights_of(self, sources: Sequence[Source]) -> list[float]:
        """Return the weight of each source; they need not add up to one.

        Raises:
            DataError: the settings do not fit these sources.
        """
        raise NotImplementedError

    def ratio(self, sources: Sequence[Source]) -> list[float]:
        """Return the share of each source; they add up to one."""
        weights = self.weights_of(sources)
        return [weight / sum(weights) for weight in weights]

    def order(self, sources: Sequence[Source]) -> Order:
        """Return which source each row comes from.

        Raises:
            DataError: the settings do not fit these sources.
        """
        weights, limits = self.weights_of(sources), None
        if self.epochs_at_most is not None:
            most = self.epochs_at_most
            limits = [int(max(most * each.rows, 1)) if weight else 0
                      for each, weight in zip(sources, weights, strict=True)]  # fmt: skip
        return Order(weights, limits)

    def build(self, sources: Sequence[Source], seed: int) -> RatioMixer:
        """Return the mixer; nothing in it is drawn at random.

        Raises:
            DataError: there is no source, or the settings do not fit them.
        """
        if not sources:
            raise DataError("There is no source to read.")
        return RatioMixer(self.order(sources), len(sources))


class RatioMixer:
    """Rows of several sources, each source's in its own order."""

    def __init__(self, order: Order, sources: int) -> None:
        self._order = order
        self._alone = sources == 1

    def shares(self, step: int, batch_size: int, rank: int, world: int) -> list[Share]:
        first, count = part_of(step, batch_size, rank, world)
        if self._alone and self._order.length is None:
            return [Share(0, first, count)]
        sources = self._order.sources(first, count)
        numbers = self._order.counts(first)
        edges = np.flatnonzero(np.diff(sources, prepend=-1, append=-1)).tolist()
        shares = []
        for begin, end in itertools.pairwise(edges):
            source = int(sources[begin])
            shares.append(Share(source, int(numbers[source]), end - begin))
            numbers[source] += end - begin
        return shares
