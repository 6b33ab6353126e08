"""The windowed cache of rows that have read unequally much.

Each row keeps its own latest positions, and its first ones where the layer has sinks, aligned
right: a new token of every row is joined at the end of all. Slots of rows that hold less are `FAR`.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from coterie.model.geometry import FAR, KeyLayout, UnevenRows, real_tokens


class UnevenWindow:
    """Keys, values and positions of one layer, row by row.

    Args:
        window: how many positions a query sees, its own included.
        sinks: how many first positions it sees besides.
        keys: held so far.
        values: of the same positions.
        positions: of each.
    """

    def __init__(
        self,
        window: int,
        sinks: int,
        keys: Float[Tensor, "B K S C"],
        values: Float[Tensor, "B J S E"],
        positions: Int[Tensor, "B S"],
    ) -> None:
        self._window, self._sinks = window, sinks
        self._keys, self._values, self._positions = keys, values, positions

    def append(
        self, keys: Float[Tensor, "B K T C"], values: Float[Tensor, "B J T E"], rows: UnevenRows
    ) -> tuple[Float[Tensor, "B K S C"], Float[Tensor, "B J S E"], KeyLayout]:
        """Add T positions, of which rows may have fewer; return them after those kept."""
        joined_keys = torch.cat((self._keys, keys), 2)
        joined_values = torch.cat((self._values, values), 2)
        positions = rows.positions
        if not rows.even:
            real = real_tokens(rows.lengths, positions.shape[1], positions.device)
            positions = positions.where(real, FAR)
        positions = torch.cat((self._positions, positions), 1)
        self._keep(joined_keys, joined_values, positions, rows)
        return joined_keys, joined_values, KeyLayout(positions=positions)

    def _keep(self, keys: Tensor, values: Tensor, positions: Tensor, rows: UnevenRows) -> None:
        """Hold on to what later tokens may see."""
        most = min(max(rows.totals), self._window - 1 + self._sinks)
        start = max(positions.shape[1] - most, 0)
        if rows.even and not self._sinks:  # the latest are the last of every row
            keys, values, positions = keys[:, :, start:], values[:, :, start:], positions[:, start:]
        else:
            ends = torch.tensor(rows.totals, device=positions.device)[:, None]
            latest = (positions < FAR) & (positions >= ends - self._window + 1)
            kept = latest | self._is_sink(positions, rows)
            # Those that go come first, and are cut off or marked as empty.
            order = positions.where(kept, -1).argsort(dim=1, stable=True)[:, start:]
            positions = positions.where(kept, FAR).gather(1, order)
            keys, values = (
                each.gather(2, order[:, None, :, None].expand(-1, each.shape[1], -1, each.shape[3]))
                for each in (keys, values)
            )
        self._keys, self._values, self._positions = keys, values, positions

    def _is_sink(self, positions: Int[Tensor, "B S"], rows: UnevenRows) -> Bool[Tensor, "B S"]:
        """Return which positions are the first of a row, or of its latest document."""
        if rows.starts is None or rows.key_starts is None:
            return positions < self._sinks
        begin = rows.starts[:, -1:]  # padding stands where the row's last token does
        own = rows.key_starts.gather(1, positions.clamp(max=rows.key_starts.shape[1] - 1))
        return (positions - begin < self._sinks) & (own == begin) & (positions < FAR)

    def select(self, rows: Int[Tensor, " R"]) -> None:
        """Keep only these rows of the batch, in this order."""
        self._keys, self._values, self._positions = (
            each.index_select(0, rows) for each in (self._keys, self._values, self._positions)
        )

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return self._keys.nbytes + self._values.nbytes
