"""How positions make chunks of equal length: laid out on a grid [chunks, places], and back.

Every position of a chunk has its place; places after the last position of an unfinished chunk stay
empty, and hold zeros that no query sees. Rows of one text all have one grid. In rows of several
documents chunks begin anew with each document, so each row has a grid of its own.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


@runtime_checkable
class Chunks(Protocol):
    """A grid of n chunks.

    Attributes:
        number: n.
        own: [Q, P], which places of its own chunk each query place sees.
        before: [*B, n, n], which chunks were finished before a chunk of the same text began.
    """

    number: int
    own: Bool[Tensor, "Q P"]
    before: Bool[Tensor, "*B n n"]

    def spread(self, x: Float[Tensor, "B K S C"]) -> Float[Tensor, "B K n P C"]:
        """Lay what belongs to positions out on the grid."""
        ...

    def spread_queries(self, x: Float[Tensor, "B H T C"]) -> Float[Tensor, "B H n Q C"]:
        """Lay what belongs to the new positions out on the grid."""
        ...

    def gather_queries(self, x: Float[Tensor, "B H n Q C"]) -> Float[Tensor, "B H T C"]:
        """Return to the new positions what belongs to them."""
        ...

    def ends(self, number: int) -> Int[Tensor, "b n"]:
        """Return the places, among the new positions, of the last ones of the first chunks."""
        ...


class RowChunks:
    """One text in each row, of which the first position given begins a chunk.

    Args:
        positions: how many positions are given.
        new: how many of them, the last ones, are new: those with queries.
        size: positions of a chunk.
    """

    def __init__(self, positions: int, new: int, size: int, device: torch.device) -> None:
        self.number = -(-positions // size)
        self._size, self._new, self._held = size, new, positions - new
        assert self._held < size, "a finished chunk was not summarised"
        # In a single chunk nothing is padded: a lone new token is one query, not a whole chunk.
        self._places = positions if self.number == 1 else size
        rows = new if self.number == 1 else size
        causal = torch.ones(self._places, self._places, dtype=torch.bool, device=device).tril()
        self.own = causal[self._places - rows :]
        self.before = torch.ones(
            self.number, self.number, dtype=torch.bool, device=device
        ).tril(-1)  # fmt: skip
        self._device = device

    def spread(self, x: Float[Tensor, "B K S C"]) -> Float[Tensor, "B K n P C"]:
        empty = self.number * self._places - x.shape[2]
        padded = F.pad(x, (0, 0, 0, empty)) if empty else x
        return padded.unflatten(2, (self.number, self._places))

    def spread_queries(self, x: Float[Tensor, "B H T C"]) -> Float[Tensor, "B H n Q C"]:
        if self.number == 1:
            return x.unsqueeze(2)
        return self.spread(F.pad(x, (0, 0, self._held, 0)) if self._held else x)

    def gather_queries(self, x: Float[Tensor, "B H n Q C"]) -> Float[Tensor, "B H T C"]:
        if self.number == 1:
            return x.squeeze(2)
        return x.flatten(2, 3)[:, :, self._held : self._held + self._new]

    def ends(self, number: int) -> Int[Tensor, "1 n"]:
        at = torch.arange(1, number + 1, device=self._device) * self._size - 1 - self._held
        return at[None]


class DocumentChunks:
    """Several documents in each row; chunks begin anew with each.

    Args:
        starts: where each position's document begins in its row.
    """

    def __init__(self, starts: Int[Tensor, "B T"], size: int) -> None:
        at = torch.arange(starts.shape[1], device=starts.device).expand_as(starts)
        place = (at - starts) % size
        chunk = (place == 0).cumsum(1) - 1
        self.number = int(chunk.max()) + 1
        self._size = size
        self._rows = torch.arange(len(starts), device=starts.device)[:, None]
        self._places = chunk * size + place
        self.own = torch.ones(size, size, dtype=torch.bool, device=starts.device).tril()
        # The document of each chunk, known by where it starts; −1 where a row has no such chunk.
        text = torch.full((len(starts), self.number), -1, device=starts.device)
        text[self._rows, chunk] = starts
        earlier = torch.ones(
            self.number, self.number, dtype=torch.bool, device=starts.device
        ).tril(-1)  # fmt: skip
        self.before = ((text[:, :, None] == text[:, None, :]) & earlier)[:, None]
        # Of a chunk that is not full, any position will do: nobody reads its summary.
        self._ends = torch.zeros_like(text).scatter_reduce_(1, chunk, at, "amax")

    def spread(self, x: Float[Tensor, "B K T C"]) -> Float[Tensor, "B K n P C"]:
        batch, heads, _, channels = x.shape
        grid = x.new_zeros(batch, self.number * self._size, heads, channels)
        grid = grid.index_put((self._rows, self._places), x.transpose(1, 2))
        return grid.transpose(1, 2).unflatten(2, (self.number, self._size))

    def spread_queries(self, x: Float[Tensor, "B H T C"]) -> Float[Tensor, "B H n P C"]:
        """Lay what belongs to the positions, all of them new, out on the grid."""
        return self.spread(x)

    def gather_queries(self, x: Float[Tensor, "B H n P C"]) -> Float[Tensor, "B H T C"]:
        return x.flatten(2, 3).transpose(1, 2)[self._rows, self._places].transpose(1, 2)

    def ends(self, number: int) -> Int[Tensor, "B n"]:
        """Return the places of the last positions of the first chunks."""
        return self._ends[:, :number]
