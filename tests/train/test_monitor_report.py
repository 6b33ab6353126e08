"""Speed, MFU and loads are of the steps since the record before, whatever is recorded."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from coterie.train.events import LoadMeasured, StepDone
from coterie.train.metrics import StepMetrics
from coterie.train.monitor import report
from coterie.train.monitor.report import StepReporter
from coterie.train.progress import Progress
from coterie.train.step import StepResult


@pytest.fixture
def heard(monkeypatch):
    """Report seven steps of 1, 2, 3, … seconds, the third of them skipped; return the events."""
    monkeypatch.setattr(report, "selection_biases", lambda decoder: {})
    events: list[object] = []
    progress = Progress(step=10, tokens=640, train_seconds=100.0)  # an earlier session's
    reporter = StepReporter(
        events.append, nn.Linear(1, 1), flops_of=lambda step: 1e9, peak_flops=4e9,
        log_every=3, load_every=4, begun=progress,
    )  # fmt: skip
    for number in range(1, 8):
        progress.advance(tokens=64, seconds=float(number), loss=1.0)
        load = {0: torch.tensor([number, 10 * number])}
        metrics = StepMetrics(loss=1.0, loads=load, dropped={0: torch.tensor(number)})
        result = StepResult(metrics, 0.0, 1.0, 0.1, moved=number != 3)
        reporter.step_done(progress, result, last=number == 7)
    return events


def test_speed_is_that_of_all_steps_since_the_record_before(heard):
    steps = [event for event in heard if isinstance(event, StepDone)]
    assert [event.step for event in steps] == [12, 15, 17]
    assert [event.seconds for event in steps] == pytest.approx([1.5, 4.0, 6.5])
    assert [event.tokens_per_second for event in steps] == pytest.approx(
        [64 / 1.5, 64 / 4.0, 64 / 6.5]
    )
    assert [event.mfu for event in steps] == pytest.approx([0.25 / 1.5, 0.25 / 4.0, 0.25 / 6.5])
    assert [event.tokens for event in steps] == [640 + 64 * n for n in (2, 5, 7)]


def test_loads_are_of_the_steps_made_since_the_record_before(heard):
    loads = [event for event in heard if isinstance(event, LoadMeasured)]
    assert [(event.step, event.steps) for event in loads] == [(12, 2), (16, 3), (17, 1)]
    # Step 13 was skipped: 1 + 2, then 4 + 5 + 6, then 7.
    assert [event.layers[0].load for event in loads] == [(3, 30), (15, 150), (7, 70)]
    assert [event.layers[0].dropped for event in loads] == [3, 15, 7]
