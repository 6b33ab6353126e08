"""Windows are a pure function of (seed, step, rank, world) and visit every start."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.data import Windows
from coterie.foundation.errors import DataError


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.integers(1, 300),
    context=st.integers(1, 70),
    seed=st.integers(0, 2**70),
    batch=st.integers(1, 50),
)
def test_each_epoch_visits_every_start_once(tokens, context, seed, batch):
    windows = Windows(tokens, context, seed)
    count = windows.count
    assert count == (tokens - context if tokens > context else tokens)
    steps = -(-2 * count // batch)
    stream = np.concatenate([windows.starts(step * batch, batch) for step in range(steps)])
    for epoch in range(2):
        part = stream[epoch * count : (epoch + 1) * count]
        assert sorted(part.tolist()) == list(range(count))


def test_a_lap_reads_the_whole_text_and_no_token_twice():
    tokens, context = 1000, 16
    windows = Windows(tokens, context, seed=9)
    lap = (windows.count - context) // context  # windows that every lap has at least
    for number in (0, 1):
        first = windows.starts(number * windows.count, lap)
        read = np.concatenate([np.arange(start, start + context) for start in first])
        assert len(np.unique(read)) == len(read)
        assert len(read) > tokens - 3 * context


def test_a_step_needs_no_step_before_it():
    windows = Windows(1000, 8, seed=1)
    forward = [windows.starts(step * 16, 16).tolist() for step in range(200)]
    backward = [
        Windows(1000, 8, seed=1).starts(step * 16, 16).tolist() for step in range(199, -1, -1)
    ]
    assert forward == backward[::-1]


def test_orders_differ_between_epochs_and_seeds():
    first = Windows(500, 10, seed=1)
    orders = {
        tuple(first.starts(0, 490)),
        tuple(first.starts(490, 490)),
        tuple(Windows(500, 10, seed=2).starts(0, 490)),
        tuple(range(490)),
    }
    assert len(orders) == 4


def test_the_order_is_the_same_on_every_machine_for_ever():
    assert Windows(1_003_854, 64, seed=1337).starts(7 * 6, 6).tolist() == GOLDEN


GOLDEN = [765057, 568129, 1001281, 972993, 469377, 426113]


def test_the_order_looks_random():
    """Neighbours in the order are neither near nor evenly spaced; each tenth is evenly visited."""
    count = 100_000
    order = Windows(count + 4, 4, seed=3).starts(0, count)
    steps = np.diff(order)
    assert len(np.unique(steps)) > 0.1 * count
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.02
    for part in np.split(order, 10):
        shares = np.histogram(part, bins=10, range=(0, count))[0] / len(part)
        assert np.abs(shares - 0.1).max() < 0.02  # six standard deviations


def test_what_cannot_be_is_refused():
    with pytest.raises(DataError, match="no tokens"):
        Windows(0, 4, seed=0)
    with pytest.raises(DataError, match="context"):
        Windows(10, 0, seed=0)
