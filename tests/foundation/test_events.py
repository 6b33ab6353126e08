"""Events: written one per line, read back typed, torn and superseded records left out."""

from __future__ import annotations

import errno
import io
import math

import pytest

from coterie.foundation.errors import RunError, UserError
from coterie.foundation.events import (
    Evaluated,
    EventLog,
    LayerLoad,
    LoadMeasured,
    Notice,
    RunEnded,
    RunStarted,
    StepDone,
    read_events,
)  # fmt: skip


def step(number: int, loss: float = 2.0) -> StepDone:
    return StepDone(
        step=number, loss=loss, learning_rate=0.1, gradient_norm=1.0, tokens=number * 8,
        seconds=0.1, tokens_per_second=80.0,
    )  # fmt: skip


def started(resumed_from: int | None = None) -> RunStarted:
    return RunStarted(
        name="a", preset="p", parameters=10, active_parameters=5, steps=9, tokens_per_step=8,
        device="cpu", precision="float32", machine={"cores": 2}, resumed_from=resumed_from,
    )  # fmt: skip


def write(path, *events):
    with EventLog(path) as log:
        for event in events:
            log(event)


def test_events_read_back_equal(tmp_path):
    events = [
        started(), step(1),
        LoadMeasured(step=1, steps=1, layers=(LayerLoad(layer=0, load=(3, 5), bias=(0.1, -0.1)),)),
        Evaluated(step=1, split="valid", loss=2.0, tokens=10, characters=40, seconds=0.5),
        Notice(level="warning", message="look"),
        RunEnded(step=1, status="finished", seconds=2.0),
    ]  # fmt: skip
    write(tmp_path / "e.jsonl", *events)
    assert read_events(tmp_path / "e.jsonl") == events
    assert events[3].nats_per_character == 0.5


def test_a_torn_line_costs_one_record_also_when_the_log_goes_on(tmp_path):
    path = tmp_path / "e.jsonl"
    write(path, started(), step(1))
    with open(path, "a") as file:
        file.write('{"kind":"step","st')
    assert [event.kind for event in read_events(path)] == ["run_started", "step"]
    write(path, step(2))
    assert [event.kind for event in read_events(path)] == ["run_started", "step", "step"]


def test_steps_done_again_after_a_resume_replace_the_earlier_ones(tmp_path):
    path = tmp_path / "e.jsonl"
    write(path, started(), step(1), step(2, loss=9.0), step(3, loss=9.0))
    write(path, started(resumed_from=1), step(2, loss=1.0))
    losses = [event.loss for event in read_events(path) if isinstance(event, StepDone)]
    assert losses == [2.0, 1.0]


def test_unknown_kinds_and_fields_of_a_newer_version_are_passed_over(tmp_path):
    path = tmp_path / "e.jsonl"
    write(path, started())
    path.write_text(
        path.read_text().replace('"name"', '"shiny":1,"name"') + '{"kind":"later"}\n[]\n'
    )
    assert [event.kind for event in read_events(path)] == ["run_started"]


def test_numbers_that_are_not_finite_survive(tmp_path):
    event = step(1).model_copy(update={"gradient_norm": math.inf})
    write(tmp_path / "e.jsonl", event)
    assert read_events(tmp_path / "e.jsonl")[0].gradient_norm == math.inf


def test_no_events_is_an_error_for_the_reader(tmp_path):
    with pytest.raises(RunError, match="recorded nothing"):
        read_events(tmp_path / "none.jsonl")


def test_a_full_disk_is_told(tmp_path):
    class Full(io.StringIO):
        def write(self, _text):
            raise OSError(errno.ENOSPC, "No space left on device")

    log = EventLog(tmp_path / "e.jsonl")
    log.close()
    log._file = Full()
    with pytest.raises(UserError, match="disk is full"):
        log.append(step(1))
