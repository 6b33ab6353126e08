"""The order of sources: every prefix in its ratio, and no state."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coterie.data.mix.order import _BLOCK, Order
from coterie.foundation.errors import DataError

_ROWS = 1_000
WEIGHTS = st.lists(st.floats(1e-6, 10), min_size=2, max_size=9)
LIMITS = st.lists(st.integers(1, 200), min_size=9, max_size=9)
ODD = [0.0066, 0.0008, 0.6312, 0.0024, 0.002, 0.3568, 0.0002]  # the largest deficit alone: 1.2 off


def largest_distance(order: Order, sources: np.ndarray) -> float:
    """Return how far, in rows, any source is at any prefix from what was asked for."""
    counts = np.cumsum(sources[:, None] == np.arange(len(order.asked(0))), axis=0)
    return float(np.abs(counts.T - order.asked(np.arange(1, len(sources) + 1))).max())


@settings(max_examples=8, deadline=None)
@given(WEIGHTS)
@example([0.7, 0.3])
@example([1.7, 0.3])
@example([0.5, 0.3, 0.2])
@example([1.0, 1e-6, 1.0])
@example(ODD)
def test_every_prefix_holds_the_ratio_to_within_one_row(weights):
    order = Order(weights)
    sources = order.sources(0, _ROWS)
    assert largest_distance(order, sources) < 1
    ratio = np.array(weights) / sum(weights)
    assert np.abs(np.bincount(sources, minlength=len(weights)) - ratio * _ROWS).max() < 1


@settings(max_examples=8, deadline=None)
@given(WEIGHTS, LIMITS)
@example([0.7, 0.3], [500, 20])
@example([1.0, 1.0, 1.0], [3, 400, 400])
def test_sources_that_are_used_up_leave_the_others_in_their_ratio(weights, limits):
    limits = limits[: len(weights)]
    order = Order(weights, limits)
    assert order.length == sum(limits)
    sources = order.sources(0, order.length)
    assert np.bincount(sources, minlength=len(weights)).tolist() == limits
    assert largest_distance(order, sources) < 1
    with pytest.raises(DataError, match="used up after"):
        order.sources(order.length - 1, 2)


def test_what_is_asked_for_once_a_source_is_used_up():
    order = Order([2.0, 1.0, 1.0], [10, 100, 100])
    assert order.asked(20).tolist() == [10, 5, 5]
    assert order.asked(60).tolist() == [10, 25, 25]


@settings(max_examples=2, deadline=None)
@given(WEIGHTS, st.booleans())
@example(ODD, False)
@example([0.7, 0.3], True)
def test_any_row_is_the_same_whatever_came_before(weights, limited):
    limits = [3_300 + 97 * k for k in range(len(weights))] if limited else None
    whole = Order(weights, limits).sources(0, 3 * _BLOCK // 2)
    counts = np.cumsum(whole[:, None] == np.arange(len(weights)), axis=0)
    for row in (_BLOCK - 1, _BLOCK + 1, len(whole) - 9):
        fresh = Order(weights, limits)
        assert fresh.counts(row).tolist() == counts[row - 1].tolist()
        assert fresh.sources(row, 9).tolist() == whole[row : row + 9].tolist()


@pytest.mark.parametrize("weights", [[0.7, 0.3], [0.31, 0.27, 0.42123], [1.0] * 12])
def test_a_row_far_ahead_is_found_without_going_there(weights, monkeypatch):
    order, computed = Order(weights), []
    compute = order._computed
    monkeypatch.setattr(
        order, "_computed", lambda first, most, before: computed.append(most) or compute(
            first, most, before
        ),
    )  # fmt: skip
    row = 10**9 + 1
    assert np.abs(order.counts(row) - order.asked(row)).max() < 1
    assert sum(computed) <= 2 * _BLOCK


def test_a_weight_of_nothing_is_never_read():
    assert set(Order([1.0, 0.0, 2.0]).sources(0, 500).tolist()) == {0, 2}
    assert Order([1.0, 0.0], [5, 0]).length == 5
