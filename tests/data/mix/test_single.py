"""One source: steps and ranks take its rows in order."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from coterie.data.mix import Single
from coterie.foundation.errors import DataError


def numbers(step, batch_size, rank=0, world=1):
    (share,) = Single().build([100], seed=1).shares(step, batch_size, rank, world)
    assert share.source == 0
    return np.arange(share.first, share.first + share.count).tolist()


@pytest.mark.parametrize("world", [1, 2, 3, 4, 12])
def test_the_union_over_ranks_does_not_depend_on_their_number(world):
    for step in (0, 1, 29):
        shared = [numbers(step, 12, rank, world) for rank in range(world)]
        assert [*itertools.chain(*shared)] == list(range(step * 12, step * 12 + 12))


@pytest.mark.parametrize(("batch_size", "world"), [(0, 1), (10, 3)])
def test_a_batch_that_cannot_be_shared_is_refused(batch_size, world):
    with pytest.raises(DataError, match="cannot be shared"):
        numbers(0, batch_size, 0, world)


def test_several_sources_are_refused():
    with pytest.raises(DataError, match="one source, not 2"):
        Single().build([1, 2], seed=0)
