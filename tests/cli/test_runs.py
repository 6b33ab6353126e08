"""`coterie runs`: figures read from events alone."""

from __future__ import annotations

import json
import random

import pytest

from coterie.cli.app import run as coterie
from coterie.foundation.event_log import EventLog
from coterie.foundation.runs import RunDirectory, runs_root
from coterie.train.events import Evaluated, RunEnded, RunStarted, StepDone


@pytest.fixture
def finished():
    run = RunDirectory.create(runs_root(), "finished")
    run.write_config("seed: 1\n")
    with EventLog(run.events) as log:
        log(RunStarted(
            name="finished", preset="quickstart", parameters=1234, active_parameters=567,
            steps=20, tokens_per_step=64, device="cpu", precision="float32",
        ))  # fmt: skip
        log(StepDone(
            step=20, loss=1.5, learning_rate=0.1, gradient_norm=1.0, tokens=1280,
            seconds=0.1, tokens_per_second=640.0,
        ))  # fmt: skip
        log(Evaluated(step=20, split="valid", loss=1.625, tokens=100, seconds=0.1))
        log(RunEnded(step=20, status="finished", seconds=3.0))
    (run.checkpoints / "step-00000020").mkdir()
    return run


def test_list_shows_each_run(finished, capsys):
    assert coterie(["runs", "list"]) == 0
    shown = capsys.readouterr().out
    for part in ("finished", "quickstart", "20/20", "1.6250", "1,280"):
        assert part in shown


def test_list_as_json(finished, capsys):
    RunDirectory.create(runs_root(), "bare").write_config("seed: 1\n")
    assert coterie(["runs", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["finished"]["validation_loss"] == 1.625
    assert rows["bare"]["status"] == "not started"


def test_show_tells_checkpoints_and_files(finished, capsys):
    assert coterie(["runs", "show", "latest"]) == 0
    shown = capsys.readouterr().out
    assert "step-00000020" in shown
    assert "1,234" in shown
    assert coterie(["runs", "show", "finished", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["checkpoints"] == ["step-00000020"]


def test_one_bad_line_breaks_nothing_else(finished, capsys):
    other = RunDirectory.create(runs_root(), "other")
    other.write_config("seed: 1\n")
    other.events.write_bytes(b'{"kind":"evaluated"}\n' + finished.events.read_bytes())
    assert coterie(["runs", "list"]) == 0
    shown = capsys.readouterr()
    assert shown.out.count("1.6250") == 2
    assert "other/events.jsonl: line 1 was passed over: step: field required" in shown.err
    for words in (["runs", "show", "other"], ["report", "other"], ["report", "other", "finished"]):
        assert coterie(words) == 0
        assert "line 1 was passed over" in capsys.readouterr().err
    assert "line 1 was passed over" in other.report.read_text()
    assert coterie(["runs", "show", "other", "--json"]) == 0
    assert "line 1" in json.loads(capsys.readouterr().out)["problems"][0]


@pytest.mark.parametrize("config", [b"[1, 2]", b"seed: [", b"\xff\xfe", b"&a {b: *a}", b"3"])
def test_broken_settings_are_named_and_the_others_shown(finished, config, capsys):
    other = RunDirectory.create(runs_root(), "other")
    other.config.write_bytes(config)
    other.events.write_bytes(finished.events.read_bytes())
    assert coterie(["runs", "list"]) == 0
    shown = capsys.readouterr()
    assert shown.out.count("1.6250") == 2
    assert "other/config.yaml" in shown.err
    assert coterie(["report", "other", "finished"]) == 0


def test_a_record_that_cannot_be_read_is_named(finished, capsys):
    other = RunDirectory.create(runs_root(), "other")
    other.write_config("seed: 1\n")
    other.events.mkdir()
    assert coterie(["runs", "list"]) == 0
    shown = capsys.readouterr()
    assert "1.6250" in shown.out
    assert "other/events.jsonl is not a regular file" in shown.err
    assert coterie(["report", "other"]) == 2


def test_any_flipped_bit_leaves_every_view_working(finished, capsys):
    sound = finished.events.read_bytes()
    seed = random.randrange(10**6)
    stream = random.Random(seed)
    for _ in range(40):
        content = bytearray(sound)
        content[stream.randrange(len(content))] ^= 1 << stream.randrange(8)
        finished.events.write_bytes(content)
        for words in (["runs", "list"], ["runs", "show", "finished"], ["report", "finished"]):
            assert coterie(words) == 0, (seed, bytes(content))
            told = " ".join(capsys.readouterr().err.split())
            for number, line in enumerate(bytes(content).split(b"\n"), start=1):
                try:
                    json.loads(line or b"{}")
                except ValueError:
                    assert f"line {number} was passed over" in told, (seed, line)


def test_an_unknown_run_exits_with_2(finished, capsys):
    assert coterie(["runs", "show", "finnished"]) == 2
    assert "did you mean “finished”" in capsys.readouterr().err
