"""The cache of a layer that replaces finished runs of positions by a few summaries of them.

It holds the summaries of all finished runs and the keys and values of the run that is still going
on, so that its memory grows with the summaries and not with the text. Every cache kind uses it for
such layers: what is left out of it, the layer could not do without.
"""

from __future__ import annotations

from copy import copy

from jaxtyping import Float, Int
from torch import Tensor

from coterie.generate.cache.buffer import Buffer
from coterie.model.geometry import KeyLayout, UnevenRows

_FIRST_ROOM = 16
_BUFFERS = ("_keys", "_values", "_summary_keys", "_summary_values")


class SummaryLayerCache:
    """Keys and values of one layer: the latest positions, and summaries of all before them."""

    def __init__(self) -> None:
        self._keys, self._values = Buffer(_FIRST_ROOM), Buffer(_FIRST_ROOM)
        self._summary_keys, self._summary_values = Buffer(_FIRST_ROOM), Buffer(_FIRST_ROOM)
        self._forgotten = 0
        self._rows: list[SummaryLayerCache] | None = None  # once rows have read unequally much

    def append(
        self,
        keys: Float[Tensor, "B K T C"],
        values: Float[Tensor, "B J T E"],
        rows: UnevenRows | None = None,
    ) -> tuple[Float[Tensor, "B K S C"], Float[Tensor, "B J S E"], KeyLayout]:
        """Add T positions; return all that are not summarised."""
        assert rows is None, "rows that differ are appended one by one"
        layout = KeyLayout(start_position=self._forgotten)
        return self._keys.append(keys), self._values.append(values), layout

    def row(self, row: int, rows: int) -> SummaryLayerCache:
        """Return the cache of one row of `rows`; from the first such call on each has its own."""
        if self._rows is None:
            self._rows = [self._alone(number) for number in range(rows)]
            self.clear()
        return self._rows[row]

    def _alone(self, row: int) -> SummaryLayerCache:
        other = copy(self)
        for name in _BUFFERS:
            setattr(other, name, getattr(self, name).row(row))
        return other

    def clear(self) -> None:
        """Forget everything but the caches of single rows."""
        for buffer in self._buffers():
            buffer.forget(len(buffer))
        self._forgotten = 0

    def summarise(
        self, count: int, keys: Float[Tensor, "B K L C"], values: Float[Tensor, "B J L E"]
    ) -> None:
        """Forget the oldest `count` positions and keep L summaries in their place."""
        self._keys.forget(count)
        self._values.forget(count)
        self._summary_keys.append(keys)
        self._summary_values.append(values)
        self._forgotten += count

    def summaries(self) -> tuple[Float[Tensor, "B K L C"], Float[Tensor, "B J L E"]] | None:
        """Return all summaries in their order; None while there are none."""
        keys, values = self._summary_keys.all(), self._summary_values.all()
        return None if keys is None or values is None else (keys, values)

    def select(self, rows: Int[Tensor, " R"]) -> None:
        """Keep only these rows of the batch, in this order."""
        if self._rows is not None:
            self._rows = [self._rows[row]._alone(0) for row in rows.tolist()]
        for buffer in self._buffers():
            buffer.select(rows)

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes, summaries and single positions."""
        own = sum(buffer.nbytes for buffer in self._buffers())
        return own + sum(each.nbytes for each in self._rows or ())

    def _buffers(self) -> tuple[Buffer, ...]:
        return tuple(getattr(self, name) for name in _BUFFERS)
