"""The tools of the steps: exactly k largest, the fewest that hold a mass, places of tokens."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.generate.sampling.candidates import Candidates, fewest, largest

INF = np.inf


def test_the_largest_are_exactly_as_many_and_of_equals_the_first():
    assert largest(np.zeros(10), 3).tolist() == [0, 1, 2]
    assert largest(np.array([1.0, 5, 1, 5, 1]), 3).tolist() == [0, 1, 3]
    assert largest(np.array([-INF, 0, -INF]), 2).tolist() == [0, 1]
    assert largest(np.zeros(4), 99).tolist() == [0, 1, 2, 3]


@settings(max_examples=25)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.integers(1, 40))
def test_the_largest_are_those_of_a_stable_sort(values, count):
    values = np.array(values, dtype=np.float64)
    expected = sorted(np.argsort(-values, kind="stable")[:count].tolist())
    assert largest(values, count).tolist() == expected


@settings(max_examples=25)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=40),
    st.lists(st.integers(-4, 4), min_size=40, max_size=40),
    st.floats(0.001, 1),
    st.lists(st.floats(-5, 5), max_size=3),
)
def test_floors_only_save_work(weights, keys, mass, floors):
    weights = np.array(weights, dtype=np.float64)
    weights /= weights.sum()
    keys = np.array(keys[: len(weights)], dtype=np.float64)
    with_floors = fewest(keys, weights, mass, sorted(floors, reverse=True))
    assert with_floors.tolist() == fewest(keys, weights, mass, ()).tolist()
    order = np.argsort(-keys, kind="stable")
    needed = int(np.searchsorted(weights[order].cumsum(), mass - 1e-12)) + 1
    assert with_floors.tolist() == sorted(order[:needed].tolist())


@pytest.mark.parametrize("tokens", [None, np.array([1, 3, 8])])
def test_tokens_are_found_where_they_stand(tokens):
    row = Candidates(np.zeros(10 if tokens is None else 3), tokens)
    assert row.places([8, 1, 1, 8]).tolist() == ([1, 8] if tokens is None else [0, 2])
    assert tokens is None or row.places([0, 2, 9]).tolist() == []
    kept = row.keep(np.array([0, 2]))
    assert kept.tokens.tolist() == ([0, 2] if tokens is None else [1, 8])
    assert kept.token(1) == (2 if tokens is None else 8)
