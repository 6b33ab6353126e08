"""Axes hold their values and mark round numbers."""

import numpy as np
import pytest

from coterie.visualise.axis import Axis, axis_for, tick_text


def test_place_runs_from_zero_to_one_and_keeps_gaps():
    placed = Axis(10, 30).place(np.array([10.0, 20.0, 30.0, np.nan, np.inf]))
    assert placed[:3].tolist() == [0.0, 0.5, 1.0]
    assert np.isnan(placed[3:]).all()
    assert float(Axis(1, 100, log=True).place(10.0)) == pytest.approx(0.5)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    "values", [[1.4, 4.2], [0.9, 1.2], [3e-5, 2e-3], [120.0, 9e5], [1.0, 1.0], [0.0, 0.0], [-5.0]]
)
def test_an_axis_holds_its_values_and_has_ticks_inside(values, log):
    axis = axis_for(np.array(values), log=log)
    assert axis.low <= min(values)
    assert axis.high >= max(values)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 12
    assert all(axis.low - 1e-9 <= tick <= axis.high * (1 + 1e-9) + 1e-9 for tick in ticks)
    texts = [tick_text(tick, ticks) for tick in ticks]
    assert len(set(texts)) == len(texts), texts


def test_an_axis_may_begin_at_a_given_value():
    assert axis_for(np.array([3.0, 9.0]), at_least=0.0).low == 0.0
    assert axis_for(np.array([1.2, 4.0]), log=True, at_least=1.0).low == 1.0


def test_an_axis_without_values_still_works():
    assert axis_for(np.array([np.nan])).ticks()


def test_ticks_are_round_and_short():
    assert [tick_text(t, [0.0, 250.0, 500.0]) for t in (0.0, 250.0, 500.0)] == ["0", "250", "500"]
    assert tick_text(15_000, [0, 15_000]) == "15k"
    assert tick_text(2_500_000, [2_500_000]) == "2.5M"
    assert tick_text(0.0002, [0.0002]) == "2e−4"
