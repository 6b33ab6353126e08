"""The windowed cache of rows that have read unequally much.

Each row keeps its own latest positions, and its first ones where the layer has sinks, aligned
right: a new token of every row is joined at the end of all. Slots of rows that hold less are `FAR`.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from coterie.generate.cache.ragged import Spare
from coterie.generate.cache.stack import Placement
from coterie.model.geometry import FAR, KeyLayout, UnevenRows, real_tokens


class UnevenWindow:
    """Keys, values and positions of one layer, row by row.

    Args:
        reach: how many positions a query sees, its own included; how many first positions it sees
            besides; how many of the latest positions may be taken back.
        oldest: the first position of each row that is kept, sinks apart.
    """

    def __init__(
        self,
        reach: tuple[int, int, int],
        keys: Float[Tensor, "B K S C"],
        values: Float[Tensor, "B J S E"],
        positions: Int[Tensor, "B S"],
        oldest: tuple[int, ...],
    ) -> None:
        self._window, self._sinks, self._rollback = reach
        self._keys, self._values, self._positions = keys, values, positions
        self._oldest = oldest
        self._spare = Spare(), Spare()
        self._past: tuple[int, ...] = ()

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
        shown = self._shown(positions, rows)
        self._keep(joined_keys, joined_values, positions, rows)
        return joined_keys, joined_values, KeyLayout(positions=shown)

    def _shown(self, positions: Int[Tensor, "B S"], rows: UnevenRows) -> Int[Tensor, "B S"]:
        """Hide what is kept only to be gone back to."""
        if not self._rollback:
            return positions
        begins = torch.tensor(rows.past, device=positions.device)[:, None]
        near = positions >= begins - self._window + 1
        return positions.where(near | self._is_sink(positions, rows), FAR)

    def _keep(self, keys: Tensor, values: Tensor, positions: Tensor, rows: UnevenRows) -> None:
        """Hold on to what later tokens may see."""
        reach = self._window - 1 + self._rollback
        ends = zip(self._oldest, rows.totals, strict=True)
        self._oldest = tuple(max(oldest, total - reach) for oldest, total in ends)
        most = min(max(rows.totals), reach + self._sinks)
        start = max(positions.shape[1] - most, 0)
        if rows.even and not self._sinks:  # the latest are the last of every row
            keys, values, positions = keys[:, :, start:], values[:, :, start:], positions[:, start:]
        else:
            ends = torch.tensor(rows.totals, device=positions.device)[:, None]
            latest = (positions < FAR) & (positions >= ends - reach)
            kept = latest | self._is_sink(positions, rows)
            keys, values, positions = _aligned(keys, values, positions, kept, start)
        self._keys, self._values, self._positions = keys, values, positions

    def _is_sink(self, positions: Int[Tensor, "B S"], rows: UnevenRows) -> Bool[Tensor, "B S"]:
        """Return which positions are the first of a row, or of its latest document."""
        if rows.starts is None or rows.key_starts is None:
            return positions < self._sinks
        begin = rows.starts[:, -1:]  # padding stands where the row's last token does
        own = rows.key_starts.gather(1, positions.clamp(max=rows.key_starts.shape[1] - 1))
        return (positions - begin < self._sinks) & (own == begin) & (positions < FAR)

    def placed(self, extra: int, past: tuple[int, ...]) -> Placement:
        """Return where positions are, with room for `extra` more; there are no sinks."""
        keys, self._keys, start = self._spare[0].memory(self._keys, extra)
        values, self._values, _ = self._spare[1].memory(self._values, extra)
        self._past = past
        end = start + self._keys.shape[2]  # each row's latest position is before this slot
        firsts = (
            max(old, total - self._window + 1)
            for old, total in zip(self._oldest, past, strict=True)
        )
        runs = [
            [[first, total + extra, end - total]] for first, total in zip(firsts, past, strict=True)
        ]
        return Placement(keys, values, torch.tensor(runs), self._window)

    def written(self, past: tuple[int, ...]) -> None:
        ends = torch.tensor(past, device=self._positions.device)[:, None]
        count = past[0] - self._past[0]
        new = ends + torch.arange(-count, 0, device=ends.device)
        reach = self._window - 1 + self._rollback
        self._oldest = tuple(
            max(old, total - reach) for old, total in zip(self._oldest, past, strict=True)
        )
        positions = torch.cat((self._positions, new), 1)
        drop = max(positions.shape[1] - min(max(past), reach), 0)
        self._positions = positions[:, drop:]
        self._keys = self._spare[0].grown(self._keys, count, drop)
        self._values = self._spare[1].grown(self._values, count, drop)

    def join(self, other: "UnevenWindow") -> None:
        missing = self._keys.shape[2] - other._keys.shape[2]
        for each, count in ((self, max(-missing, 0)), (other, max(missing, 0))):
            each._keys = F.pad(each._keys, (0, 0, count, 0))
            each._values = F.pad(each._values, (0, 0, count, 0))
            each._positions = F.pad(each._positions, (count, 0), value=FAR)
        self._keys = torch.cat((self._keys, other._keys))
        self._values = torch.cat((self._values, other._values))
        self._positions = torch.cat((self._positions, other._positions))
        self._oldest += other._oldest

    def truncate(self, lengths: tuple[int, ...]) -> None:
        """Forget each row's positions from `lengths[row]` on.

        Raises:
            ValueError: what stood before is not kept any more.
        """
        for oldest, length in zip(self._oldest, lengths, strict=True):
            check_kept(oldest, length, self._window, self._rollback)
        ends = torch.tensor(lengths, device=self._positions.device)[:, None]
        self._keys, self._values, self._positions = _aligned(
            self._keys, self._values, self._positions, self._positions < ends, 0
        )

    def select(self, rows: Int[Tensor, " R"]) -> None:
        self._keys, self._values, self._positions = (
            each.index_select(0, rows) for each in (self._keys, self._values, self._positions)
        )
        self._oldest = tuple(self._oldest[row] for row in rows.tolist())

    @property
    def nbytes(self) -> int:
        return self._spare[0].nbytes(self._keys) + self._spare[1].nbytes(self._values)


def check_kept(oldest: int, length: int, window: int, rollback: int) -> None:
    """Refuse to go back to where the window begins before what is kept.

    Args:
        oldest: the first position of the run that is kept.
        window: how many of them the next query sees, its own included.
        rollback: how many positions the cache was built to take back.

    Raises:
        ValueError: some of them are gone.
    """
    if oldest > max(length - window + 1, 0):
        raise ValueError(
            f"positions from {length} on cannot be taken back, for what stood before {oldest} is "
            f"gone; the cache was built with rollback={rollback}"
        )


def _aligned(
    keys: Tensor, values: Tensor, positions: Tensor, kept: Tensor, start: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what is kept at the end of each row; what goes comes first: cut off, or empty."""
    order = positions.where(kept, -1).argsort(dim=1, stable=True)[:, start:]
    positions = positions.where(kept, FAR).gather(1, order)
    keys, values = (
        each.gather(2, order[:, None, :, None].expand(-1, each.shape[1], -1, each.shape[3]))
        for each in (keys, values)
    )
    return keys, values, positions
