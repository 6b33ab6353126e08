"""Rows that hold unequally many positions, each from slot 0 on, and what a batch of them needs."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coterie.model.geometry import FAR, UnevenRows

_SPARE = 32


def appended(
    held: Float[Tensor, "B K R C"],
    filled: Sequence[int],
    new: Float[Tensor, "B K T C"],
    rows: UnevenRows | None,
) -> Float[Tensor, "B K S C"]:
    """Return what rows hold with the new positions after it; slots beyond are finite.

    Args:
        held: of each row the first `filled` slots count.
        filled: how many of each row; the same for all where `rows` is None.
        new: T further positions.
        rows: how many of them are real.
    """
    if rows is None:
        return torch.cat((held, new), 2)
    width = max(have + more for have, more in zip(filled, rows.lengths, strict=True))
    longer = padded(held[:, :, :width].clone(), width)
    row, place, position = rows.real
    # The slot of a row's first new position is the one after those it holds.
    shift = torch.tensor(filled, device=new.device) - torch.tensor(rows.past, device=new.device)
    longer[row, :, position + shift[row]] = new[row, :, place]
    return longer


def numbered(
    first: Sequence[int], filled: Sequence[int], width: int, device: torch.device
) -> Int[Tensor, "B S"]:
    """Return the positions of rows that begin with `first` and fill so many of `width` slots."""
    at = torch.arange(width, device=device)
    starts, ends = torch.tensor(first, device=device), torch.tensor(filled, device=device)
    return (starts[:, None] + at).where(at < ends[:, None], FAR)


def padded(each: Tensor, width: int) -> Tensor:
    """Return a tensor [B, K, S, …] with room for `width` positions, zeros in those added."""
    if each.shape[2] == width:
        return each
    larger = each.new_zeros(*each.shape[:2], width, *each.shape[3:])
    larger[:, :, : each.shape[2]] = each
    return larger


class Spare:
    """Memory behind the positions of a tensor, for more to be written there.

    Whoever replaces the tensor need not say so: the memory is then made anew.
    """

    def __init__(self) -> None:
        self._view: Tensor | None = None
        self._start = 0

    def memory(self, held: Float[Tensor, "B K S C"], extra: int) -> tuple[Tensor, Tensor, int]:
        """Return memory with room for `extra` more, what it is now held as, and where that begins.

        The second replaces `held`.
        """
        width = held.shape[2]
        if self._view is not held or self._start + width + extra > self._memory.shape[2]:
            self._memory = padded(held, width + extra + _SPARE)
            self._start = 0
            self._view = held = self._memory[:, :, :width]
        return self._memory, held, self._start

    def grown(self, held: Tensor, count: int, drop: int = 0) -> Tensor:
        """Return what is held after `count` more were written and the first `drop` let go."""
        self._start += drop
        end = self._start + held.shape[2] + count - drop
        self._view = self._memory[:, :, self._start : end]
        return self._view

    def nbytes(self, held: Tensor) -> int:
        """Return the bytes that a tensor takes with the room around it."""
        return self._memory.nbytes if self._view is held else held.nbytes


def joined(one: Tensor, other: Tensor) -> Tensor:
    """Return the rows of two tensors [B, K, S, …], those of the second after the first's."""
    width = max(one.shape[2], other.shape[2])
    return torch.cat((padded(one, width), padded(other, width)))
