"""A step's rows shared out to ranks."""

from __future__ import annotations

import itertools

import pytest

from coterie.data.mix import part_of
from coterie.foundation.errors import DataError


@pytest.mark.parametrize("world", [1, 2, 3, 4, 12])
def test_the_union_over_ranks_does_not_depend_on_their_number(world):
    for step in (0, 1, 29):
        parts = [part_of(step, 12, rank, world) for rank in range(world)]
        shared = [range(first, first + count) for first, count in parts]
        assert [*itertools.chain(*shared)] == list(range(step * 12, step * 12 + 12))


@pytest.mark.parametrize(("batch_size", "world"), [(0, 1), (10, 3)])
def test_a_batch_that_cannot_be_shared_is_refused(batch_size, world):
    with pytest.raises(DataError, match="cannot be shared"):
        part_of(0, batch_size, 0, world)
