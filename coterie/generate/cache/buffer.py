"""Room for positions that are appended one after another, and for rows that come and go.

Room for positions doubles whenever it is used up, and so does room for rows. Doubling copies each
position at most once on average, where joining the new one to the old ones at each step would copy
all of them every time; and what is handed out is a slice, never a copy. A row that leaves is
overwritten by the last one, so that a batch is not copied because one of its rows has ended.
"""

from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor

from coterie.model.geometry import UnevenRows

_SPARSE = 4
"""Room for rows is given back once so many times as much is held as is used."""


class Buffer:
    """Positions of one tensor [B, K, S, C] in their order, appended in place."""

    def __init__(self, room: int) -> None:
        assert room >= 1
        self._room = room
        self._used = 0
        self._rows = 0
        self._held: Tensor | None = None  # [rows or more, K, positions or more, C]

    def __len__(self) -> int:
        return self._used

    @property
    def rows(self) -> int:
        """Rows held; 0 before anything was."""
        return self._rows

    def append(self, new: Float[Tensor, "B K T C"]) -> Float[Tensor, "B K S C"]:
        """Add T positions and return all of them, a slice of the room."""
        end = self._used + new.shape[2]
        held = self._reserved(new, end)
        held[:, :, self._used : end] = new
        self._used = end
        return held[:, :, :end]

    def put(self, new: Float[Tensor, "B K T C"], rows: UnevenRows) -> Float[Tensor, "B K S C"]:
        """Write each row's new positions where they belong; return as many as the longest has.

        Slots beyond a row's last position hold zeros, or what stood there before.
        """
        end = max(rows.totals)
        held = self._reserved(new, end)
        row, place, position = rows.real
        held[row, :, position] = new[row, :, place]
        self._used = end
        return held[:, :, :end]

    def room_for(self, extra: int, like: Tensor | None = None) -> Float[Tensor, "B K R C"]:
        """Return all the memory of the rows, with room for `extra` positions beyond those used.

        Args:
            extra: positions to come.
            like: gives rows, heads and channels where nothing is held.
        """
        like = self._held[: self._rows] if self._held is not None else like
        assert like is not None, "nothing was appended yet"
        return self._reserved(like, self._used + extra)

    def resize(self, used: int) -> None:
        """Say how many positions are used: fewer than before, or those written into the room."""
        assert self._held is None or used <= self._held.shape[2]
        self._used = used

    def _reserved(self, like: Tensor, needed: int) -> Float[Tensor, "B K R C"]:
        """Return the rows' memory, made larger where it holds fewer than `needed` positions."""
        if self._held is None:
            self._rows = like.shape[0]
        if self._held is None or self._held.shape[2] < needed:
            self._held = self._larger(like, self._rows, needed)
        return self._held[: self._rows]

    def _larger(self, like: Tensor, rows: int, needed: int) -> Tensor:
        """Return room for `needed` positions, a power of two times the first, with those held."""
        room = self._room if self._held is None else self._held.shape[2]
        while room < needed:
            room *= 2
        _, heads, _, channels = like.shape
        larger = self._zeros(like, (rows, heads, room, channels))
        if self._held is not None:
            larger[: self._rows, :, : self._used] = self._held[: self._rows, :, : self._used]
        return larger

    def _zeros(self, like: Tensor, shape: tuple[int, ...]) -> Tensor:
        return like.new_zeros(shape)

    def _chosen(self, rows: Int[Tensor, " R"]) -> Tensor:
        assert self._held is not None
        return self._held.index_select(0, rows)

    def all(self) -> Float[Tensor, "B K S C"] | None:
        """Return the positions held; None while there are none."""
        if self._held is None or not self._used:
            return None
        return self._held[: self._rows, :, : self._used]

    def forget(self, count: int) -> None:
        """Drop the `count` oldest positions and give back the room they took.

        What was handed out before stays as it was.
        """
        assert count <= self._used
        held = self.all()
        rest = None if held is None else held[:, :, count:]
        self._held, self._used, self._rows = None, 0, 0
        if rest is not None and rest.shape[2]:
            self.append(rest)

    def row(self, row: int) -> "Buffer":
        """Return a copy of one row of the batch."""
        other = Buffer(self._room)
        if self._held is not None:
            other._used, other._rows = self._used, 1
            other._held = self._held[row : row + 1].clone()
        return other

    def join(self, other: "Buffer") -> None:
        """Put the rows of another buffer after one's own; slots beyond their positions hold 0."""
        if other._held is None:
            return
        if self._held is None:
            self._held, self._rows, self._used = other._held, other._rows, other._used
            return
        first, stop = self._rows, self._rows + other._rows
        used = max(self._used, other._used)
        if self._held.shape[0] < stop or self._held.shape[2] < used:
            rows = max(self._held.shape[0], stop)
            rows = max(rows, 2 * first) if rows > self._held.shape[0] else rows
            self._held = self._larger(self._held, rows, used)
        self._held[first:stop, :, : other._used] = other._held[: other._rows, :, : other._used]
        # What a row that has left wrote there may not be finite.
        self._held[first:stop, :, other._used :] = 0
        self._rows, self._used = stop, used

    def select(self, rows: Int[Tensor, " R"]) -> None:
        if self._held is None:
            return
        order = rows.tolist()
        count, capacity = len(order), self._held.shape[0]
        sparse = capacity > _SPARSE and count * _SPARSE <= capacity
        if sparse or not in_place(order):
            self._held = self._chosen(rows)
        else:
            for row, source in enumerate(order):
                if row != source:
                    self._held[row, :, : self._used] = self._held[source, :, : self._used]
        self._rows = count

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes, the room for further positions and rows included."""
        return 0 if self._held is None else self._held.nbytes


def in_place(order: Sequence[int]) -> bool:
    """Whether rows keep their places but for those that are overwritten by later ones."""
    return all(source == row or source >= len(order) for row, source in enumerate(order))
