"""Chance: a stream of numbers for each seed, and draws that fall where they should."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.generate.sampling.drawing import draw, uniform


def test_a_number_depends_on_its_seed_and_place_alone():
    assert uniform(7, 3) == uniform(7, 3)
    assert len({uniform(seed, index) for seed in range(40) for index in range(40)}) == 1600


def test_neighbouring_seeds_and_places_share_nothing():
    grid = np.array([[uniform(seed, index) for index in range(100)] for seed in range(100)])
    assert grid.min() >= 0
    assert grid.max() < 1
    assert abs(grid.mean() - 0.5) < 0.01
    assert abs(grid.var() - 1 / 12) < 0.005
    centred = grid - 0.5
    for other in (np.roll(centred, 1, 0), np.roll(centred, 1, 1), centred.T):
        assert abs((centred * other).mean() * 12) < 0.06


@pytest.mark.parametrize("point", [0.0, 1 - 2**-53])
@pytest.mark.parametrize("size", [0, 5000])
def test_draw_at_the_edges_skips_impossible_tokens(point, size):
    empty = np.zeros(size)
    chances = np.concatenate((empty, [0, 0.3, 0.7, 0], empty))
    assert draw(chances, point) - size == (1 if point == 0 else 2)


@settings(max_examples=25)
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=700).filter(any),
    st.floats(0, 1, exclude_max=True),
)
def test_draw_finds_the_place_in_the_running_sum(weights, point):
    weights = weights * (1 if len(weights) < 50 else 80)
    chances = np.array(weights, dtype=np.float32)
    ends = chances.astype(np.float64).cumsum()
    place = draw(chances, point)
    assert chances[place] > 0
    assert ends[place] >= point * ends[-1] - 1e-9
    assert ends[place] - chances[place] <= point * ends[-1] + 1e-9
