"""Room for positions that are appended one after another: it doubles whenever it is used up.

Doubling copies each position at most once on average, where joining the new one to the old ones at
each step would copy all of them every time; and what is handed out is a slice, never a copy.
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from coterie.model.geometry import UnevenRows


class Buffer:
    """Positions of one tensor [B, K, S, C] in their order, appended in place.

    Args:
        room: positions to make room for at first.
    """

    def __init__(self, room: int) -> None:
        assert room >= 1
        self._room = room
        self._used = 0
        self._held: Tensor | None = None

    def __len__(self) -> int:
        return self._used

    def append(self, new: Float[Tensor, "B K T C"]) -> Float[Tensor, "B K S C"]:
        """Add T positions and return all of them, a slice of the room."""
        end = self._used + new.shape[2]
        if self._held is None or self._held.shape[2] < end:
            self._held = self._larger(new, end)
        self._held[:, :, self._used : end] = new
        self._used = end
        return self._held[:, :, :end]

    def put(self, new: Float[Tensor, "B K T C"], rows: UnevenRows) -> Float[Tensor, "B K S C"]:
        """Write each row's new positions where they belong; return as many as the longest has.

        Slots beyond a row's last position hold zeros, or what stood there before.
        """
        end = max(rows.totals)
        if self._held is None or self._held.shape[2] < end:
            self._held = self._larger(new, end)
        row, place, position = rows.real
        self._held[row, :, position] = new[row, :, place]
        self._used = end
        return self._held[:, :, :end]

    def _larger(self, like: Tensor, needed: int) -> Tensor:
        """Return room for `needed` positions, a power of two times the first, with those held."""
        room = self._room if self._held is None else self._held.shape[2]
        while room < needed:
            room *= 2
        batch, heads, _, channels = like.shape
        larger = like.new_zeros(batch, heads, room, channels)
        if self._held is not None:
            larger[:, :, : self._used] = self._held[:, :, : self._used]
        return larger

    def all(self) -> Float[Tensor, "B K S C"] | None:
        """Return the positions held; None while there are none."""
        return None if self._held is None or not self._used else self._held[:, :, : self._used]

    def forget(self, count: int) -> None:
        """Drop the `count` oldest positions and give back the room they took.

        What was handed out before stays as it was.
        """
        assert count <= self._used
        rest = None if self._held is None else self._held[:, :, count : self._used]
        self._held, self._used = None, 0
        if rest is not None and rest.shape[2]:
            self.append(rest)

    def row(self, row: int) -> Buffer:
        """Return a copy of one row of the batch."""
        other = Buffer(self._room)
        other._used = self._used
        if self._held is not None:
            other._held = self._held[row : row + 1].clone()
        return other

    def select(self, rows: Int[Tensor, " R"]) -> None:
        """Keep only these rows of the batch, in this order."""
        if self._held is not None:
            self._held = self._held.index_select(0, rows)

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes, the room for further positions included."""
        return 0 if self._held is None else self._held.nbytes
