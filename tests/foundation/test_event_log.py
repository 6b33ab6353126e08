"""The log: one event a line, torn and superseded events left out, followed while it grows."""

from __future__ import annotations

import errno
import io
import math
import os
from typing import Literal

import pytest

from coterie.foundation.errors import RunError, UserError
from coterie.foundation.event_log import EventLog, LogReader, read_events, read_record, tail
from coterie.foundation.events import (
    Count,
    Event,
    LogRestarted,
    Notice,
    Number,
    SkippedLine,
    Unknown,
)


class Begun(Event):
    kind: Literal["test:begun"] = "test:begun"
    resumed_from: Count | None = None


class Measured(Event):
    kind: Literal["test:measured"] = "test:measured"
    step: Count
    split: str = "valid"
    loss: Number = 2.0


def write(path, *events):
    with EventLog(path) as log:
        for event in events:
            log(event)


def kinds(events):
    return [event.kind.removeprefix("test:") for event in events]


def test_events_read_back_equal(tmp_path):
    events = [Begun(), Measured(step=1, loss=math.inf), Notice(level="warning", message="look")]
    write(tmp_path / "e.jsonl", *events)
    assert read_events(tmp_path / "e.jsonl") == events


def test_a_torn_line_costs_one_record_also_when_the_log_goes_on(tmp_path):
    path = tmp_path / "e.jsonl"
    write(path, Begun(), Measured(step=1))
    with open(path, "a") as file:
        file.write('{"kind":"test:measured","st')
    assert kinds(read_events(path)) == ["begun", "measured"]
    write(path, Measured(step=2))
    assert kinds(read_events(path)) == ["begun", "measured", "measured"]


def test_steps_done_again_after_a_resume_replace_the_earlier_ones(tmp_path):
    path = tmp_path / "e.jsonl"
    write(path, Begun(), Measured(step=1), Measured(step=2, loss=9.0), Measured(step=3, loss=9.0))
    write(path, Begun(resumed_from=1), Measured(step=2, loss=1.0))
    losses = [event.loss for event in read_events(path) if isinstance(event, Measured)]
    assert losses == [2.0, 1.0]


def test_a_resume_of_an_unknown_kind_voids_steps_of_unknown_kinds(tmp_path):
    path = tmp_path / "e.jsonl"
    path.write_text('{"kind":"a","step":1}\n{"kind":"a","step":2}\n{"kind":"b","resumed_from":1}\n')
    record = read_record(path)
    assert kinds(record.events) == ["a", "b"]
    assert all(isinstance(event, Unknown) for event in record.events)
    assert not record.complaints()  # nothing is wrong with the file


GOOD = b'{"time":1,"kind":"test:measured","step":3,"split":"valid","loss":2.5}'
BAD_LINES = {
    b'{"kind":"test:measured"}': "step: field required",
    GOOD.replace(b"3", b"-3"): "step: ",
    GOOD.replace(b"3", b"9" * 30): "step: ",
    GOOD.replace(b"3", b"9" * 5000): "not JSON",
    GOOD.replace(b"3", b"null"): "step: ",
    GOOD.replace(b"2.5", b"1e300"): "loss: ",
    GOOD.replace(b"2.5", b"[]"): "loss: ",
    GOOD.replace(b"valid", b"val\xffid"): "not JSON",
    GOOD.replace(b"valid", b"va\x00lid"): "not JSON",
    GOOD.replace(b"valid", b"\\ud800"): "not JSON",
    GOOD.replace(b"measured", b"measur\x1bd"): "not JSON",
    GOOD.replace(b"measured", b"\\u001b[31m"): r"its kind “test:\x1b[31m” is not the name",
    GOOD[:-1]: "not JSON",
    GOOD + GOOD: "not JSON",
    b"[" * 5000: "not JSON",
    b'{"a":' * 5000: "not JSON",
    b'["test:measured"]': "the whole",
    b'{"step":3}': "the whole",
    b"3": "the whole",
    b'{"kind":["step"]}': "its kind “['step']” is not the name",
    b'{"kind":"later","time":"noon"}': "time: ",
    b"\x93NUMPY": "not JSON",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: line[:40].decode("latin-1"))
def test_a_bad_line_is_named_and_passed_over(tmp_path, line):
    path = tmp_path / "e.jsonl"
    write(path, Begun(), Measured(step=1))
    path.write_bytes(path.read_bytes() + b"\n" + line + b"\r\n" + GOOD + b"\n")
    record = read_record(path)
    assert kinds(record.events) == ["begun", "measured", "measured"]
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
        with pytest.raises(RunError, match="not a regular file"):
            next(tail(tmp_path / name))


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
        log.append(Measured(step=1))


def test_a_growing_log_is_read_line_by_line_and_never_twice(tmp_path):
    path = tmp_path / "e.jsonl"
    reader = LogReader(path)
    assert list(reader.read()) == []  # the run has not begun
    events = [Begun(), *(Measured(step=n) for n in range(1, 30))]
    write(tmp_path / "whole.jsonl", *events)
    content = (tmp_path / "whole.jsonl").read_bytes()
    found: list[Event] = []
    with open(path, "ab", buffering=0) as file:
        for at in range(0, len(content), 37):  # pieces that end anywhere in a line
            file.write(content[at : at + 37])
            found += reader.read()
            assert len(found) == content[: at + 37].count(b"\n")
    assert found == events
    assert list(reader.read(final=True)) == []


def test_a_last_line_without_its_end_is_taken_when_nothing_more_will_come(tmp_path):
    path = tmp_path / "e.jsonl"
    path.write_bytes(GOOD + b"\n" + GOOD)
    reader = LogReader(path)
    assert kinds(reader.read()) == ["measured"]
    assert kinds(reader.read()) == []
    assert kinds(reader.read(final=True)) == ["measured"]


def test_a_damaged_line_is_passed_over_by_who_follows(tmp_path):
    path = tmp_path / "e.jsonl"
    reader = LogReader(path)
    path.write_bytes(GOOD + b"\n" + GOOD[:20])
    assert kinds(reader.read()) == ["measured"]
    write(path, Measured(step=9))  # opened again after a crash, which closes the torn line off
    skipped, event = reader.read()
    assert isinstance(skipped, SkippedLine)
    assert skipped.number == 2
    assert event.step == 9


def _shorter(path):
    path.write_bytes(GOOD + b"\n")


def _longer(path):
    path.write_bytes(b'{"time":1,"kind":"other","text":"%s"}\n' % (b"x" * 500) + GOOD + b"\n")


def _moved_away(path):
    path.rename(path.with_suffix(".1"))
    path.write_bytes(GOOD + b"\n")


@pytest.mark.parametrize(
    ("change", "reason"),
    [(_shorter, "truncated"), (_longer, "truncated"), (_moved_away, "replaced")],
)
def test_a_log_that_begins_again_is_reported_and_read_anew(tmp_path, change, reason):
    path = tmp_path / "e.jsonl"
    write(path, Begun(), Measured(step=1), Measured(step=2))
    reader = LogReader(path)
    assert len(list(reader.read())) == 3
    change(path)
    first, *others = reader.read()
    assert isinstance(first, LogRestarted)
    assert first.reason == reason
    assert others == read_events(path)
    assert list(reader.read()) == []


def test_a_longer_copy_in_the_place_of_a_log_is_read_on(tmp_path):
    path, copy = tmp_path / "e.jsonl", tmp_path / "copy"
    write(path, Begun(), Measured(step=1))
    reader = LogReader(path)
    list(reader.read())
    copy.write_bytes(path.read_bytes() + GOOD + b"\n")  # as a synchronised folder replaces files
    copy.replace(path)
    assert kinds(reader.read()) == ["measured"]


def test_a_log_that_is_gone_is_waited_for(tmp_path):
    path = tmp_path / "e.jsonl"
    write(path, Begun())
    reader = LogReader(path)
    assert kinds(reader.read()) == ["begun"]
    path.unlink()
    assert list(reader.read()) == []
    write(path, Measured(step=1))
    assert kinds(reader.read()) == ["log_restarted", "measured"]


def test_following_stops_with_everything_yielded_that_is_complete(tmp_path):
    path = tmp_path / "e.jsonl"
    looks = 0

    def stop() -> bool:  # whatever is written before a look must come, also before the last one
        nonlocal looks
        looks += 1
        write(path, Measured(step=looks))
        return looks == 3

    steps = [event.step for event in tail(path, stop=stop, every=0.001)]
    assert steps == [1, 2, 3]


def test_following_yields_events_while_the_log_is_open(tmp_path):
    path = tmp_path / "e.jsonl"
    events = tail(path, every=0.001)
    with EventLog(path) as log:
        for number in range(5):
            log(Measured(step=number))
            assert next(events).step == number
