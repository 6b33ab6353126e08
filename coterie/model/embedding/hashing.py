"""Hashing n-grams of token ids to rows of a table, the same on every machine and device.

The n-gram ending at t is the polynomial Σ (id(t−j) + 1)·a^j over j = 0 … n−1, modulo the prime
p = 2³¹ − 1 (a rolling hash, Karp & Rabin 1987), multiplied by a constant of its order before it is
folded into the table's rows. All products of two residues stay below 2⁶², so nothing overflows.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

_PRIME = 2**31 - 1
_BASE = 1_000_003
_MIXER = 1_540_483_477  # odd, spreads neighbouring residues over the whole range


def ngram_rows(
    tokens: Int[Tensor, "B n"],
    orders: Sequence[int],
    rows: int,
    places: Int[Tensor, "B t"] | None = None,
    padding: int = 0,
) -> Int[Tensor, "B t O"]:
    """Return the row, in one table for all orders, of the n-grams that end at each position.

    Args:
        tokens: ids; the first max(orders) − 1 of them are only looked back at.
        orders: lengths of n-grams, ascending.
        rows: rows per order; those of order i lie in [i·rows, (i + 1)·rows).
        places: of each of the t positions in its document; None: all are of one.
        padding: id that stands before the start of a document.
    """
    longest = orders[-1]
    length = tokens.shape[1] - longest + 1
    ids = tokens + 1
    found = []
    residue = torch.zeros_like(ids[:, :length])
    power = 1
    for back in range(longest):
        start = longest - 1 - back
        earlier = ids[:, start : start + length]
        if places is not None:
            earlier = earlier.where(places >= back, padding + 1)
        residue = (residue + earlier * power) % _PRIME
        power = power * _BASE % _PRIME
        if back + 1 in orders:
            found.append(residue * mixer(back + 1) % _PRIME % rows + len(found) * rows)
    return torch.stack(found, dim=-1)


def mixer(order: int) -> int:
    """Return the constant that residues of n-grams of this length are multiplied by."""
    return pow(_MIXER, order, _PRIME)
