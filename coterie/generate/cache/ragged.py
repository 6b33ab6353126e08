"""Rows that hold unequally many positions, each from slot 0 on, and what a batch of them needs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coterie.model.geometry import FAR, UnevenRows


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


def joined(one: Tensor, other: Tensor) -> Tensor:
    """Return the rows of two tensors [B, K, S, …], those of the second after the first's."""
    width = max(one.shape[2], other.shape[2])
    return torch.cat((padded(one, width), padded(other, width)))
