"""Loads are relative to an even share, and a long history is summed without losing a token."""

import numpy as np
import pytest

from coterie.train.events import LayerLoad, LoadMeasured
from coterie.visualise.reducers.loads import MEASUREMENTS, LayerHistory, Loads


def measured(step: int, *load: int, bias=None, entropy: float | None = None) -> LoadMeasured:
    layer = LayerLoad(layer=3, load=load, dropped=2, bias=bias, entropy=entropy)
    return LoadMeasured(step=step, steps=5, layers=(layer,))


def loads_of(events) -> Loads:
    loads = Loads()
    for event in events:
        loads.update(event)
    return loads


def test_loads_are_relative_to_an_even_share():
    loads = loads_of([measured(5, 30, 10, 0, 0)])
    (layer,) = loads.layers
    assert layer.layer == 3
    assert layer.share.tolist() == [[3.0, 1.0, 0.0, 0.0]]
    assert layer.imbalance.tolist() == [3.0]
    assert layer.dead.tolist() == [2]
    assert layer.bias is None
    assert loads.imbalance == 3.0


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


@pytest.mark.parametrize("count", [MEASUREMENTS, MEASUREMENTS + 1, 5 * MEASUREMENTS + 3])
def test_a_long_history_is_summed_and_loses_no_token(count):
    loads = loads_of(
        measured(n, n, 1, bias=(float(n), 0.0), entropy=0.5) for n in range(1, count + 1)
    )
    (layer,) = loads.layers
    np.testing.assert_array_equal(layer.entropy, np.full(len(layer.steps), 0.5))
    assert MEASUREMENTS // 2 < len(layer.steps) <= MEASUREMENTS
    assert layer.steps[-1] == count
    assert layer.load.sum(axis=0).tolist() == [count * (count + 1) // 2, count]
    assert layer.dropped.sum() == 2 * count
    assert layer.bias is not None
    assert layer.bias[-1].tolist() == [count, 0.0]


def test_entropy_is_told_beside_an_even_choice_and_drift_since_the_measurement_before():
    events = [
        measured(5, 1, 1, bias=(0.0, 0.0), entropy=np.log(2)),
        measured(10, 1, 1, bias=(0.25, -0.25)),
        measured(15, 1, 1, bias=(0.125, -0.5), entropy=0.0),
    ]
    (layer,) = loads_of(events).layers
    np.testing.assert_allclose(layer.indecision, [1.0, np.nan, 0.0])
    np.testing.assert_array_equal(layer.drift, [np.nan, 0.25, 0.25])
    (blank,) = loads_of([measured(5, 1, 1)]).layers
    assert blank.entropy is None
    assert np.isnan([*blank.indecision, *blank.drift]).all()


def test_rewinding_drops_later_measurements():
    loads = loads_of(measured(n, n, 1) for n in range(1, 10))
    loads.rewind(6)
    assert loads.layers[0].steps.tolist() == [1, 2, 3, 4, 5, 6]
    assert loads.last is None
    loads.rewind(0)
    assert loads.layers == ()


def test_another_number_of_experts_begins_anew():
    loads = loads_of([measured(1, 5, 5), measured(2, 1, 1, 1), measured(3, 2, 2, 2)])
    assert loads.layers[0].load.tolist() == [[1, 1, 1], [2, 2, 2]]
    assert loads_of([measured(1)]).layers == ()  # a layer without experts
    assert loads_of([measured(1, 0, 0)]).imbalance is None


def test_a_bias_that_is_missing_once_is_not_shown():
    loads = loads_of([measured(1, 5, 5, bias=(0.1, -0.1)), measured(2, 5, 5)])
    assert loads.layers[0].bias is None
