"""Curves stay small without losing what matters."""

import math

import numpy as np
import pytest

from coterie.visualise.reducers.curves import Curves, smooth, thin


def filled(count: int, limit: int, **odd: float) -> Curves:
    """Return curves of `loss` = 1 everywhere but at the steps named `step_N`."""
    curves = Curves("tokens", limit=limit)
    for step in range(1, count + 1):
        curves.add(step, {"tokens": 10 * step, "loss": odd.get(f"step_{step}", 1.0)})
    return curves


def test_up_to_the_limit_everything_is_kept_as_it_is():
    curves = filled(64, 64, step_7=3.0)
    assert curves.steps.tolist() == list(range(1, 65))
    assert curves["tokens"].tolist() == [10.0 * n for n in range(1, 65)]
    steps, values = curves.extremes("loss")
    assert steps.tolist() == curves.steps.tolist()
    assert values.tolist() == curves["loss"].tolist() == [3.0 if n == 7 else 1.0 for n in steps]


@pytest.mark.parametrize("count", [65, 100, 1000, 4097])
def test_beyond_the_limit_rows_are_merged_and_no_spike_is_lost(count):
    curves = filled(count, 64, step_7=3.0, step_50=-2.0)
    assert 32 < len(curves) <= 64
    assert curves.last_step == count
    assert curves["tokens"].tolist() == [10.0 * step for step in curves.steps]
    steps, values = curves.extremes("loss")
    assert (values.max(), values.min()) == (3.0, -2.0)
    assert len(steps) == len(values) == 2 * len(curves)
    assert (np.diff(curves.steps) > 0).all()


def test_merged_rows_hold_means():
    curves = Curves(limit=4)
    for step in range(1, 13):  # each row stands for four of the log, the last only begun
        curves.add(step, {"loss": float(step)})
    assert curves.steps.tolist() == [4, 8, 12]
    assert curves["loss"].tolist() == [2.5, 6.5, 10.5]


def test_numbers_that_are_not_finite_do_not_spread():
    curves = Curves(limit=4)
    for step in range(1, 9):
        curves.add(step, {"loss": {2: math.nan, 7: math.inf}.get(step, 2.0)})
    assert curves["loss"].tolist() == [2.0] * 4
    blown_up = Curves(limit=4)
    for step in range(1, 9):
        blown_up.add(step, {"loss": 2.0 if step < 5 else math.nan})
    assert np.isnan(blown_up["loss"]).tolist() == [False, False, True, True]


@pytest.mark.parametrize("first", [3, 40])
def test_a_number_may_come_late_and_go(first):
    curves = Curves(limit=16)
    for step in range(1, 61):
        curves.add(step, {"loss": 1.0, "late": 5.0 if first <= step < 50 else None})
    late = curves["late"]
    assert len(late) == len(curves)
    assert set(late[np.isfinite(late)]) == {5.0}
    assert np.isnan(late[[0, -1]]).tolist() == [first > 4, True]
    assert np.isnan(curves["never"]).all()


def test_rewinding_drops_later_rows_and_the_curve_goes_on():
    for limit in (256, 32):
        curves = filled(100, limit)
        curves.rewind(60)
        assert curves.last_step == 60
        for step in range(61, 90):
            curves.add(step, {"tokens": 10 * step, "loss": 1.0})
        assert curves.last_step == 89
        assert (np.diff(curves.steps) > 0).all()
        assert curves["tokens"].tolist() == [10.0 * step for step in curves.steps]


def test_thinning_keeps_every_extreme_and_both_ends():
    x = np.arange(100_000)
    y = np.sin(x / 1e4)
    y[54_321], y[777] = 50.0, -50.0
    tx, ty = thin(x, y, 1500)
    assert len(tx) <= 1502
    assert (tx[0], tx[-1]) == (0, 99_999)
    assert ty.max() == 50.0
    assert ty.min() == -50.0
    assert (np.diff(tx) > 0).all()


def test_thinning_bears_gaps():
    y = np.full(10_000, np.nan)
    y[5000] = 1.0
    _, ty = thin(np.arange(10_000), y, 100)
    assert np.nanmax(ty) == 1.0


def test_smoothing_does_not_lag_and_leaves_out_what_is_not_finite():
    line = np.linspace(4.0, 1.0, 400)
    assert np.abs(smooth(line) - line)[:380].max() < 1e-9
    broken = line.copy()
    broken[[50, 200]] = np.nan, np.inf
    assert np.isfinite(smooth(broken)).all()
    assert smooth(broken)[200] == pytest.approx(line[200], abs=0.01)
    assert len(smooth(np.array([]))) == 0


def test_smoothing_takes_the_noise_away():
    rng = np.random.default_rng(0)
    assert smooth(1 + rng.normal(0, 0.1, 2000)).std() < 0.025
