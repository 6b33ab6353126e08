"""Best fit decreasing, against the same done one piece at a time."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.data.packing.best_fit import best_fit


def one_by_one(lengths: list[int], row: int) -> list[int]:
    """Return the rooms left in all rows, sorted."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms.remove(min(fitting))
        rooms.append((min(fitting) if fitting else row) - length)
    return sorted(rooms)


@settings(max_examples=80, deadline=None)
@given(row=st.integers(1, 40), data=st.data())
def test_pieces_lie_where_best_fit_puts_them(row, data):
    lengths = data.draw(st.lists(st.integers(1, row), max_size=60))
    counts = np.bincount(lengths, minlength=row + 1) if lengths else np.zeros(row + 1, int)
    placed = best_fit(counts)
    assert len(placed) == len(lengths)
    used = np.bincount(placed, weights=sorted(lengths, reverse=True)).astype(int)
    assert sorted((row - used).tolist()) == one_by_one(lengths, row)


def test_a_million_pieces_take_no_loop_over_them():
    lengths = np.random.default_rng(0).integers(1, 513, 1_000_000)
    placed = best_fit(np.bincount(lengths, minlength=513))
    rows = placed.max() + 1
    assert rows <= 1.01 * lengths.sum() / 512
