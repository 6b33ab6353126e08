"""A thinned list keeps the first, the last, and evenly what is between."""

from itertools import pairwise

import pytest

from coterie.visualise.reducers.curves import Thinned


@pytest.mark.parametrize("limit", [2, 4, 10])
def test_items_are_thinned_evenly_with_both_ends(limit):
    items: Thinned[int] = Thinned(limit)
    for number in range(500):
        items.append(number)
        kept = list(items)
        assert kept[0] == 0
        assert kept[-1] == items[-1] == number
        assert len(items) == len(kept) <= limit + 1
        if number < limit:
            assert kept == list(range(number + 1))
        gaps = {b - a for a, b in pairwise(kept[:-1])}
        assert len(gaps) <= 1  # all but the last
    assert items.count == 500


def test_dropping_items_goes_on_from_there():
    items: Thinned[int] = Thinned(10)
    for number in range(100):
        items.append(number)
    items.keep(lambda number: number <= 50)
    before = list(items)
    assert before[-1] <= 50
    for number in range(51, 200):
        items.append(number)
        assert items[-1] == number
        assert len(items) <= 11
    assert items[0] == 0
    items.keep(lambda _number: False)
    items.append(7)
    assert list(items) == [7]
