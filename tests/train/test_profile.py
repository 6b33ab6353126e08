"""A profile: what each part of a step costs, and that nothing else changes."""

from __future__ import annotations

import gzip
import json

import pytest
import torch
from torch._C._autograd import DeviceType

from coterie.foundation.errors import RunError
from coterie.train import profile, train
from coterie.train.events import StepDone, StepsProfiled


@pytest.fixture
def profiled(tiny, new_run, monkeypatch):
    """Return the events of a run with and without a profile, and the run with one."""
    monkeypatch.setattr(profile, "WARM_UP", 1)
    monkeypatch.setattr(profile, "RECORDED", 2)
    monkeypatch.setattr(profile, "_MOST", 1000)  # which are dearest is for the machine to say
    settings = tiny(train={"evaluate_every": 2, "gradient_accumulation": 2})
    plain, found = [], []
    train(settings, new_run("plain"), preset="tiny", observers=[plain.append])
    run = new_run("profiled")
    train(settings, run, preset="tiny", observers=[found.append], look=profile.StepProfile)
    return plain, found, run


def test_every_part_of_a_step_has_its_time_and_nothing_changes(profiled):
    plain, found, run = profiled
    (event,) = (each for each in found if isinstance(each, StepsProfiled))
    parts = {part.name: part for part in event.parts}
    both = {"attention", "experts", "dispatch and combine", "router", "norms", "head and loss",
            "embedding", "residual stream"}  # fmt: skip
    assert all(parts[name].forward > 0 and parts[name].backward > 0 for name in both)
    assert parts["optimizer"].forward > 0 == parts["optimizer"].backward
    assert {"clipping", "data", "adding up gradients"} <= parts.keys()
    total = sum(part.forward + part.backward for part in event.parts)
    # Nothing is counted twice; what a busy machine does between operations is nobody's.
    assert 0.2 * event.seconds < total < 1.2 * event.seconds
    assert parts["rest"].forward + parts["rest"].backward < 0.8 * total
    assert not event.on_device
    products = [o for o in event.operations if o.name in ("aten::mm", "aten::_grouped_mm")]
    assert {operation.backward for operation in products} == {False, True}
    assert list(event.operations) == sorted(event.operations, key=lambda o: -o.seconds)
    with gzip.open(run.profile / "trace.json.gz") as file:
        names = {each.get("name") for each in json.load(file)["traceEvents"]}
    assert {"coterie part: attention", "coterie: step"} <= names
    losses = [[e.loss for e in events if isinstance(e, StepDone)] for events in (plain, found)]
    assert losses[0] == losses[1]


def test_a_run_that_is_too_short_is_refused_before_it_begins(tiny, new_run):
    run = new_run("short")
    with pytest.raises(RunError, match="only 6 are left") as caught:
        train(tiny(), run, preset="tiny", look=profile.StepProfile)
    assert caught.value.hint == "Train for longer: train.steps=8"
    assert not run.path.exists()


def test_marks_are_taken_away_when_a_run_fails(tiny, new_run, monkeypatch):
    monkeypatch.setattr(profile, "WARM_UP", 0)
    monkeypatch.setattr(profile, "RECORDED", 3)
    heard = []

    def fail(event):
        heard.append(event)
        if isinstance(event, StepDone):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny(), new_run("cut"), preset="tiny", observers=[fail], look=profile.StepProfile)
    assert not any(isinstance(each, StepsProfiled) for each in heard)
    assert not torch.autograd.profiler._is_profiler_enabled


class _Event:
    """What the attribution reads of an event."""

    def __init__(self, name, start, end, parent=None, number=-1, device=0.0, own=1.0):
        self.name, self.cpu_parent, self.sequence_nr = name, parent, number
        self.time_range = type("Range", (), {"start": start, "end": end})
        self.device_type = DeviceType.CPU
        self.self_cpu_time_total, self.self_device_time_total = own, device


def test_a_backward_operation_belongs_to_the_part_that_made_its_node():
    step = _Event("coterie: step", 0, 100)
    mark = _Event("coterie part: experts", 1, 20, step)
    unused = _Event("aten::arange", 2, 3, step, number=7)  # has the number, makes no node
    made = _Event("aten::mm", 4, 5, mark, number=7, device=30.0)
    node = _Event("autograd::engine::evaluate_function: MmBackward0", 50, 60, None, number=7)
    product = _Event("aten::mm", 51, 52, node, device=60.0)
    later = _Event("aten::mm", 200, 201, None, device=500.0)  # evaluation, say
    events = [step, mark, unused, made, node, product, later]
    found = profile.attribute(events, on_device=True)
    assert found == {
        ("experts", False, "aten::mm"): (1, pytest.approx(30e-6)),
        ("experts", True, "aten::mm"): (1, pytest.approx(60e-6)),
    }
