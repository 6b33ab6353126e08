"""Events: written one per line, read back typed, torn and superseded records left out."""

from __future__ import annotations

import errno
import io
import math
import os

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
    read_record,
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


GOOD = b'{"kind":"evaluated","step":3,"split":"valid","loss":2.5,"tokens":9,"seconds":0.5}'
BAD_LINES = {
    b'{"kind":"evaluated"}': "step: field required",
    GOOD.replace(b"3", b"-3"): "step: ",
    GOOD.replace(b"3", b"9" * 30): "step: ",
    GOOD.replace(b"3", b"9" * 5000): "not JSON",
    GOOD.replace(b"3", b"null"): "step: ",
    GOOD.replace(b"2.5", b"1e300"): "loss: ",
    GOOD.replace(b"2.5", b"[]"): "loss: ",
    GOOD.replace(b"valid", b"val\xffid"): "not JSON",
    GOOD.replace(b"valid", b"va\x00lid"): "not JSON",
    GOOD.replace(b"valid", b"\\ud800"): "not JSON",
    GOOD.replace(b"evaluated", b"evaluat\x1bd"): "not JSON",
    GOOD.replace(b"evaluated", b"\\u001b[31m"): r"\x1b[31m",
    GOOD[:-1]: "not JSON",
    GOOD + GOOD: "not JSON",
    b"[" * 5000: "not JSON",
    b'{"a":' * 5000: "not JSON",
    b'["evaluated"]': "the whole",
    b"3": "the whole",
    b'{"kind":["step"]}': "not known",
    b"\x93NUMPY": "not JSON",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: line[:40].decode("latin-1"))
def test_a_bad_line_is_named_and_passed_over(tmp_path, line):
    path = tmp_path / "e.jsonl"
    write(path, started(), step(1))
    path.write_bytes(path.read_bytes() + b"\n" + line + b"\r\n" + GOOD + b"\n")
    record = read_record(path)
    assert [event.kind for event in record.events] == ["run_started", "step", "evaluated"]
    (skipped,) = record.skipped
    assert skipped.number == 4  # an empty line counts, as it does in an editor
    assert BAD_LINES[line] in skipped.reason
    (complaint,) = record.complaints()
    assert "e.jsonl: line 4 was passed over: " in complaint
    assert complaint.isprintable()


def test_only_the_first_of_many_bad_lines_are_told(tmp_path):
    path = tmp_path / "e.jsonl"
    path.write_bytes(b"what\n" * 9)
    told = read_record(path).complaints()
    assert len(told) == 4
    assert "6 more lines" in told[-1]


def test_what_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # whoever opened it would wait for ever
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(RunError, match="not a regular file"):
            read_record(tmp_path / name)
        with pytest.raises(RunError, match="not a regular file"):
            EventLog(tmp_path / name)


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
