"""`coterie runs`: figures read from events alone."""

from __future__ import annotations

import json

import pytest

from coterie.cli.app import run as coterie
from coterie.foundation.events import Evaluated, EventLog, RunEnded, RunStarted, StepDone
from coterie.foundation.runs import RunDirectory, runs_root


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


def test_an_unknown_run_exits_with_2(finished, capsys):
    assert coterie(["runs", "show", "finnished"]) == 2
    assert "did you mean “finished”" in capsys.readouterr().err
