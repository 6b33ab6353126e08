"""Which positions see which: the one definition that every back end computes.

Position i sees position j when

    j ≤ i  and  (j < sinks  or  (i − j < window  and  the sparse pattern lets i see j)),

and where rows hold several documents, when both are of one document as well; positions then count
from the document's first token, so that a document in a packed row is read as if it stood alone. A
window of w is the position itself and the w − 1 before it. Sinks: Xiao et al. 2023,
arXiv:2309.17453.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from coterie.model.attention.sparse import Sparse
from coterie.model.cache import CacheSpec

Range = tuple[int, int]
"""Positions from the first number up to, not including, the second."""


@dataclass(frozen=True)
class Mask:
    """What a causal query sees.

    Attributes:
        window: the latest positions, its own included; None: all before it.
        sinks: the first positions of the text, seen besides the window and the pattern.
        sparse: the pattern within the window; None: every position.
    """

    window: int | None = None
    sinks: int = 0
    sparse: Sparse | None = None

    @property
    def plain(self) -> bool:
        """Whether it hides nothing but the future."""
        return self.window is None and self.sparse is None

    @property
    def relative(self) -> bool:
        """Whether what is seen depends on distances alone."""
        return not self.sinks and (self.sparse is None or self.sparse.relative)

    @property
    def words(self) -> str:
        """What it is, in a few words."""
        parts = ["all before" if self.window is None else f"window {self.window}"]
        parts += [] if self.sparse is None else [self.sparse.kind]
        parts += [f"{self.sinks} sinks"] if self.sinks else []
        return ", ".join(parts)

    def sees(self, query: Tensor, key: Tensor) -> Tensor:
        """Return whether positions see positions, element by element (they broadcast)."""
        seen = key <= query
        if self.plain:
            return seen
        inside = seen
        if self.window is not None:
            inside = inside & (query - key < self.window)
        if self.sparse is not None:
            inside = inside & self.sparse.allows(query, key)
        return inside | (seen & (key < self.sinks)) if self.sinks else inside

    def visible(
        self, queries_at: Int[Tensor, "*B T"], keys_at: Int[Tensor, "*B S"]
    ) -> Bool[Tensor, "*B T S"]:
        """Return which of the positions `keys_at` each of the positions `queries_at` sees."""
        return self.sees(queries_at[..., :, None], keys_at[..., None, :])

    def cache_spec(self) -> CacheSpec:
        """Return what a cache must keep: without a window, everything."""
        return CacheSpec() if self.window is None else CacheSpec(self.window, self.sinks)

    def within(self, span: int) -> "Mask":
        """Return the same mask without what cannot matter among `span` neighbouring positions."""
        window = None if self.window is None or self.window >= span else self.window
        bounded = window is not None or self.sparse is not None
        return replace(self, window=window, sinks=self.sinks if bounded else 0)

    def ranges(self, start: int, stop: int) -> list[Range]:
        """Return ordered, disjoint ranges that hold all that positions `start` to `stop` see."""
        low = 0 if self.window is None else max(start - self.window + 1, 0)
        found = [(0, min(self.sinks, stop))] if self.sinks else []
        inner = [(0, stop)] if self.sparse is None else self.sparse.ranges(start, stop)
        found += [(max(a, low), min(b, stop)) for a, b in inner]
        return merged(found)

    def tile(self, about: int) -> int:
        """Return how many queries to take together, near `about`."""
        return about if self.sparse is None else self.sparse.tile(about)

    def mean_visible(self, context: int) -> float:
        """Return how many positions a query sees, averaged over a text of `context` tokens."""
        at = torch.arange(context)
        low = torch.zeros_like(at) if self.window is None else (at - self.window + 1).clamp(min=0)
        latest = (at + 1 - low.clamp(min=self.sinks)).clamp(min=0)
        inside = latest if self.sparse is None else self.sparse.seen(at, latest)
        return float((inside + (at + 1).clamp(max=self.sinks)).sum()) / context


def merged(ranges: list[Range]) -> list[Range]:
    """Return ranges in order, without the empty ones, those that touch joined."""
    found: list[Range] = []
    for start, stop in sorted(ranges):
        if start >= stop:
            continue
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], stop))
        else:
            found.append((start, stop))
    return found
