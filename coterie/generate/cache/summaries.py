"""The cache of a layer that replaces finished runs of positions by a few summaries of them.

It holds the summaries of all finished runs and the keys and values of the run that is still going
on, so that its memory grows with the summaries and not with the text. Every cache kind uses it for
such layers: what is left out of it, the layer could not do without.
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from coterie.generate.cache.buffer import Buffer

_FIRST_ROOM = 16


class SummaryLayerCache:
    """Keys and values of one layer: the latest positions, and summaries of all before them."""

    def __init__(self) -> None:
        self._keys, self._values = Buffer(_FIRST_ROOM), Buffer(_FIRST_ROOM)
        self._summary_keys, self._summary_values = Buffer(_FIRST_ROOM), Buffer(_FIRST_ROOM)
        self._forgotten = 0

    def append(
        self, keys: Float[Tensor, "B K T C"], values: Float[Tensor, "B J T E"]
    ) -> tuple[Float[Tensor, "B K S C"], Float[Tensor, "B J S E"], int]:
        """Add T positions; return all that are not summarised, and the place of the first."""
        return self._keys.append(keys), self._values.append(values), self._forgotten

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
        for buffer in self._buffers():
            buffer.select(rows)

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes, summaries and single positions."""
        return sum(buffer.nbytes for buffer in self._buffers())

    def _buffers(self) -> tuple[Buffer, ...]:
        return self._keys, self._values, self._summary_keys, self._summary_values
