"""Strips of load: their axis tells at which step each column ended, however few there are."""

import re

import numpy as np
import pytest

from coterie.visualise.heat import load_strips
from coterie.visualise.reducers.loads import LayerHistory


def ticks(steps: list[int]) -> dict[str, float]:
    """Return where the axis below strips of measurements at these steps has which label."""
    load = np.ones((len(steps), 4), dtype=np.int64)
    layer = LayerHistory(0, np.array(steps), load, np.zeros(len(steps), np.int64), None)
    found = re.findall(r'x-tick" style="left:([\d.]+)%">([^<]+)<', load_strips([layer]))
    assert len(found) == len({label for _, label in found})
    return {label: float(place) for place, label in found}


@pytest.mark.parametrize("steps", [[20], [4, 8, 12, 16, 20], [10, 20], list(range(1, 21))])
def test_labels_stand_where_their_step_was_done(steps):
    assert ticks(steps) == {"0": 0.0, "5": 25.0, "10": 50.0, "15": 75.0, "20": 100.0}


def test_columns_may_cover_different_numbers_of_steps():
    assert ticks([10, 11, 12, 20]) == {"0": 0.0, "5": 12.5, "10": 25.0, "15": 84.38, "20": 100.0}


def test_no_label_stands_between_two_steps():
    assert ticks([1]) == {"0": 0.0, "1": 100.0}


def test_an_odd_record_has_an_axis_all_the_same():
    assert set(ticks([10, 5, 20])) == {"0", "5", "10", "15", "20"}
