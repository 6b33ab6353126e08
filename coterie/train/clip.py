"""Clipping: the largest gradient norm that a step may have, fixed or learned from the run's past.

A member says its `limit()` before each step and `observe`s the norm that was measured after it; its
history is part of the checkpoint, so that a resumed run clips as it would have.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from coterie.foundation.settings import Settings, union


class Clipper:
    """Bounds gradient norms by a fixed limit, by none, or by a percentile of the norms so far."""

    def __init__(
        self, limit: float | None, *, percentile: float | None = None, history: int = 0
    ) -> None:
        self._limit = limit
        self._percentile = percentile
        self._norms: deque[float] = deque(maxlen=history)

    def limit(self) -> float | None:
        """Return the norm above which the next gradient is scaled down; None means no bound."""
        if self._percentile is None or not self._norms:
            return self._limit
        learned = _percentile(self._norms, self._percentile)
        return learned if self._limit is None else min(learned, self._limit)

    def observe(self, norm: float) -> None:
        """Take note of a gradient's norm before clipping.

        Infinite norms teach nothing, and neither do those of batches without any target: a limit of
        zero would take the next step's whole gradient away.
        """
        if self._percentile is not None and 0.0 < norm < math.inf:
            self._norms.append(norm)

    def state(self) -> list[float]:
        """Return the history, for a checkpoint."""
        return list(self._norms)

    def load_state(self, norms: Sequence[float]) -> None:
        """Take the history back from a checkpoint."""
        self._norms.clear()
        self._norms.extend(norms)


def _percentile(values: Sequence[float] | deque[float], percentile: float) -> float:
    """Return the nearest-rank percentile (0 to 100) of some numbers."""
    ordered = sorted(values)
    rank = math.ceil(percentile / 100.0 * len(ordered))
    return ordered[max(0, rank - 1)]


class NormClip(Settings):
    """Gradients with a norm above `max_norm` are scaled down to it."""

    kind: Literal["norm"] = "norm"
    max_norm: float = Field(default=1.0, gt=0, description="largest norm over all parameters")

    def build(self) -> Clipper:
        """Return a clipper with this limit."""
        return Clipper(self.max_norm)


class AdaptiveClip(Settings):
    """The limit is a percentile of the norms of the latest steps.

    AutoClip, Seetharaman et al. 2020, arXiv:2007.14469, with a bounded history.
    """

    kind: Literal["adaptive"] = "adaptive"
    percentile: float = Field(
        default=90.0, gt=0, le=100, description="of the latest norms, which bounds the next"
    )
    history: int = Field(default=1000, ge=1, description="how many of the latest norms count")
    max_norm: float | None = Field(default=None, gt=0, description="a limit that always holds")

    def build(self) -> Clipper:
        """Return a clipper that has seen nothing yet."""
        return Clipper(self.max_norm, percentile=self.percentile, history=self.history)


class NoClip(Settings):
    """Gradients are used as they are; those that are not finite still stop the run."""

    kind: Literal["none"] = "none"

    def build(self) -> Clipper:
        """Return a clipper without a limit."""
        return Clipper(None)


Clip = Annotated[NormClip | AdaptiveClip | NoClip, union(NormClip, AdaptiveClip, NoClip)]
