"""Events become series without losing what matters."""

import numpy as np
import pytest

from coterie.foundation.errors import RunError
from coterie.foundation.runs import RunDirectory
from coterie.train.events import Evaluated, LayerLoad, LoadMeasured, RunStarted, StepDone
from coterie.visualise.series import LayerHistory, read_series, series_of, smooth, thin


def step(number, **changes):
    fields = {"step": number, "loss": 2.0, "learning_rate": 0.1, "gradient_norm": 1.0,
              "tokens": 64 * number, "seconds": 0.5, "tokens_per_second": 128.0}  # fmt: skip
    return StepDone(**fields | changes)


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


def test_headline_of_a_made_up_run(synthetic):
    series = series_of(synthetic(steps=200, layers=2, resume_at=100))
    headline = series.headline()
    assert headline["status"] == "finished"
    assert headline["tokens"] == 200 * 2048
    assert headline["validation_loss"] == pytest.approx(series.validation[-1].loss, abs=1e-6)
    assert headline["nats_per_character"] == headline["validation_loss"]
    assert headline["training_loss"] < headline["validation_loss"]
    assert headline["damaged_checkpoints"] == 1
    assert series.resumes == (100,)


def test_nats_per_character_counts_characters(synthetic):
    event = Evaluated(step=1, split="valid", loss=3.0, tokens=100, characters=400, seconds=1.0)
    assert series_of([event]).headline()["nats_per_character"] == 0.75


def test_a_run_that_was_resumed_and_goes_on_has_not_ended(synthetic):
    events = synthetic(steps=100, resume_at=50, finished=False)
    assert series_of(events).status == "running"


def test_time_counts_steps_that_were_not_recorded():
    series = series_of([step(10), step(20), step(21)])
    assert series.elapsed.tolist() == [5.0, 10.0, 10.5]
    assert series.at_step(series.tokens, [5, 10, 25]).tolist() == [0, 640, 1344]


def test_loads_are_relative_to_an_even_share():
    loads = [LayerLoad(layer=3, load=(30, 10, 0, 0), dropped=2)]
    layer = series_of([LoadMeasured(step=5, steps=5, layers=tuple(loads))]).layers[0]
    assert layer.layer == 3
    assert layer.share.tolist() == [[3.0, 1.0, 0.0, 0.0]]
    assert layer.imbalance.tolist() == [3.0]
    assert layer.dead.tolist() == [2]
    assert layer.bias is None


def test_balance_in_the_headline_sums_the_end_of_the_run():
    events = [
        LoadMeasured(step=s, steps=1, layers=(LayerLoad(layer=0, load=load),))
        for s, load in enumerate([(90, 10)] * 18 + [(60, 40), (40, 60)])
    ]
    assert series_of(events).imbalance == 1.0


def test_binning_sums_neighbours_and_loses_no_token():
    load = np.arange(2000).reshape(1000, 2)
    layer = LayerHistory(0, np.arange(1, 1001), load, np.ones(1000, int), load / 1e3)
    binned = layer.binned(160)
    assert len(binned.steps) == 160
    assert binned.steps[-1] == 1000
    assert binned.load.sum() == load.sum()
    assert binned.dropped.sum() == 1000
    assert binned.bias is not None
    assert binned.bias[-1].tolist() == [1.998, 1.999]


def test_events_without_anything_make_an_empty_series():
    series = series_of([])
    assert series.status == "running"
    assert series.headline()["training_loss"] is None


def test_a_run_without_events_is_an_error(tmp_path):
    with pytest.raises(RunError):
        read_series(RunDirectory(tmp_path))


def test_a_fact_that_is_missing_stays_missing():
    start = RunStarted(name="n", preset="p", parameters=1, active_parameters=1, steps=2,
                       tokens_per_step=1, device="cpu", precision="float32")  # fmt: skip
    headline = series_of([start, step(1, mfu=None)]).headline()
    assert headline["mfu"] is None
    assert headline["validation_loss"] is None
    assert headline["max_over_mean_load"] is None
