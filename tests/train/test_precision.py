"""Devices, precisions, the loss scale, and random states that can be set aside."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch

from coterie.foundation.errors import SettingsError
from coterie.foundation.runs import cache_root
from coterie.train import machine
from coterie.train.precision import LossScale, resolve_device, resolve_precision
from coterie.train.randomness import random_state, seed_all, set_aside, set_random_state

CPU = torch.device("cpu")
MEASURE = machine.measure_matmul  # before the fixture of this folder stands in for it


def test_auto_says_what_it_chose_and_why():
    precision = resolve_precision("auto", CPU)
    assert (precision.name, precision.dtype) == ("float32", torch.float32)
    assert precision.reason == "nothing was measured"
    assert resolve_precision("bfloat16", CPU).dtype == torch.bfloat16


def test_autocast_computes_in_the_precision():
    weight = torch.ones(4, 4)
    with resolve_precision("bfloat16", CPU).autocast():
        assert (weight @ weight).dtype == torch.bfloat16
    with resolve_precision("float32", CPU).autocast():
        assert (weight @ weight).dtype == torch.float32


@pytest.mark.parametrize("name", ["cuda:99", "abacus"])
def test_a_device_that_is_not_there_is_a_clear_error(name):
    with pytest.raises(SettingsError, match=rf"train.device={name} cannot be used"):
        resolve_device(name)


def test_loss_scale_halves_on_overflow_and_doubles_after_a_long_time_without():
    scale = LossScale(8.0, growth_interval=3)
    scale.update(finite=False)
    assert scale.scale == 4.0
    for _ in range(3):
        scale.update(finite=True)
    assert scale.scale == 8.0
    scale.update(finite=True)
    restored = LossScale(growth_interval=3)
    restored.load_state(json.loads(json.dumps(scale.state())))
    for each in (scale, restored):
        each.update(finite=True)
        each.update(finite=True)
    assert restored.scale == scale.scale == 16.0


def test_an_overflow_begins_the_count_of_good_steps_anew():
    scale = LossScale(8.0, growth_interval=3)
    for finite in (True, True, False, True, True):
        scale.update(finite=finite)
    assert (scale.scale, scale.state()["good_steps"]) == (4.0, 2)
    scale.update(finite=True)
    assert (scale.scale, scale.state()["good_steps"]) == (8.0, 0)


def test_float16_alone_is_scaled():
    scales = {name: resolve_precision(name, CPU).loss_scale() for name in
              ("float32", "bfloat16", "float16")}  # fmt: skip
    assert scales["float32"] is scales["bfloat16"] is None
    assert scales["float16"].state() == {"scale": 2.0**16, "good_steps": 0}
    for _ in range(1999):
        scales["float16"].update(finite=True)
    assert scales["float16"].scale == 2.0**16
    scales["float16"].update(finite=True)
    assert scales["float16"].scale == 2.0**17


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_random_states_survive_json():
    seed_all(3)
    draw()
    np.random.randn()  # leaves a second normal number waiting
    state = json.loads(json.dumps(random_state()))
    expected = [draw(), float(np.random.randn())]
    set_random_state(state)
    assert [draw(), float(np.random.randn())] == expected


def test_what_is_drawn_aside_is_not_noticed():
    seed_all(3)
    expected = draw()
    seed_all(3)
    with set_aside():
        draw()
        seed_all(99)
    assert draw() == expected


def test_the_best_measurement_of_each_precision_is_kept(monkeypatch):
    rates = iter([2e9, 1e9, 3e9, 5e9])

    def measure(precision, seconds=0.0):
        return next(rates)

    monkeypatch.setattr(machine, "measure_matmul", measure)
    float32, bfloat16 = (resolve_precision(name, CPU) for name in ("float32", "bfloat16"))
    assert machine.peak_flops(float32, measure=False) is None
    assert [machine.peak_flops(float32) for _ in range(3)] == [2e9, 2e9, 3e9]
    assert machine.peak_flops(bfloat16) == 5e9
    assert machine.peak_flops(float32, measure=False) == 3e9


@pytest.mark.parametrize("kept", ["", "[]", "{}", '{"flops": 0}', '{"flops": "fast"}',
                                  '{"flops": 1e999}', "[" * 5000])  # fmt: skip
def test_a_damaged_measurement_is_made_again(monkeypatch, kept):
    monkeypatch.setattr(machine, "measure_matmul", lambda precision, seconds=0.0: 2e9)
    float32 = resolve_precision("float32", CPU)
    machine.peak_flops(float32)
    (file,) = (cache_root() / "machine").iterdir()
    file.write_text(kept)
    assert machine.peak_flops(float32, measure=False) is None
    assert machine.peak_flops(float32) == 2e9
    assert machine.peak_flops(float32, measure=False) == 2e9


def test_a_measurement_is_a_plausible_rate(monkeypatch):
    monkeypatch.setitem(machine._LARGEST_SIDES, "cpu", 256)
    flops = MEASURE(resolve_precision("float32", CPU), seconds=0.01)
    assert 1e7 < flops < 1e16
