"""Micro-batches follow the memory: fewer rows above 0.85, more below 0.65, the same losses."""

from __future__ import annotations

import torch

from coterie.foundation.event_log import read_events
from coterie.train import session as sessions
from coterie.train import train
from coterie.train.events import MicroBatchChanged, StepDone
from coterie.train.pressure import MemoryPressure, reader


def decided(readings, pieces=2, most=8):
    """Return the micro-batches after each reading; what was decided is what the next step has."""
    left = iter(readings)
    pressure, found = MemoryPressure(lambda: next(left), pieces, most), []
    for _ in readings:
        pieces, _ = pressure.decide(pieces)
        found.append(pieces)
    return found


def test_rows_shrink_by_a_fifth_when_memory_is_short_and_grow_by_a_fifth_when_there_is_plenty():
    # 2 / 0.8 = 2.5, / 0.8 = 3.125, / 0.8 = 3.9: rounded up, for rows must not be more
    assert decided([0.86, 0.9, 0.99]) == [3, 4, 4]
    # 4 / 1.2 = 3.33, 2.78, 2.31, 1.93, 1.61, 1.34, 1.12, 1
    assert decided([0.64] * 8, pieces=4) == [4, 3, 3, 2, 2, 2, 2, 1]
    assert decided([0.65, 0.7, 0.85]) == [2, 2, 2]
    assert decided([0.99] * 9)[-1] == 8  # not finer than single rows
    assert decided([0.1] * 3, pieces=1) == [1, 1, 1]
    assert decided([None, None]) == [2, 2]


def test_what_did_not_fit_is_not_tried_again():
    pressure = MemoryPressure(lambda: 0.1, 2, 8)
    assert pressure.decide(4) == (4, 0.1)  # the step was cut finer than was decided
    assert pressure.decide(4) == (4, 0.1)


def test_a_run_follows_injected_readings_and_keeps_its_losses(tiny, new_run, monkeypatch):
    readings = iter([0.9, 0.9, 0.7, 0.5, 0.5, 0.5])
    monkeypatch.setattr(sessions, "reader", lambda device: lambda: next(readings))
    common = {"gradient_accumulation": 1, "evaluate_every": 0, "checkpoint_every": 0}
    runs = {}
    for name, dynamic in (("plain", False), ("following", True)):
        runs[name] = new_run(name)
        settings = tiny(train={**common, "dynamic_batch": dynamic})
        train(settings, runs[name], preset="tiny")
    events = list(read_events(runs["following"].events))
    changes = [event for event in events if isinstance(event, MicroBatchChanged)]
    # Of four rows: 1.25 → 2 pieces, 1.56 → 2, kept, then 1.3 → 2, 1.09 → 2, 1 piece after the last
    assert [(each.step, each.pieces, each.rows, each.pressure) for each in changes] == [
        (2, 2, 2, 0.9),
    ]  # fmt: skip
    losses = {
        name: [event.loss for event in read_events(run.events) if isinstance(event, StepDone)]
        for name, run in runs.items()
    }
    torch.testing.assert_close(losses["following"], losses["plain"], atol=2e-6, rtol=1e-6)


def test_the_machines_memory_is_read_where_the_system_tells(tmp_path):
    file = tmp_path / "meminfo"
    file.write_text("MemTotal: 1000 kB\nMemFree: 10 kB\nMemAvailable: 250 kB\n")
    assert reader(torch.device("cpu"), file)() == 0.75
    assert reader(torch.device("cpu"), tmp_path / "none")() is None
