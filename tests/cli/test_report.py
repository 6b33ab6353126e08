"""`coterie report` from the command line, as a user runs it."""

import json

import pytest

from coterie.cli.app import run as coterie
from coterie.foundation.event_log import EventLog
from coterie.foundation.runs import RunDirectory, runs_root
from coterie.train.events import Evaluated, RunEnded, RunStarted, StepDone


def make(name, loss):
    run = RunDirectory.create(runs_root(), name)
    run.write_config(f"seed: 1\nloss: {loss}\n")
    with EventLog(run.events) as log:
        log(
            RunStarted(
                name=name,
                preset="quickstart",
                parameters=1234,
                active_parameters=567,
                steps=20,
                tokens_per_step=64,
                device="cpu",
                precision="float32",
            )
        )
        for step in range(1, 21):
            log(StepDone(step=step, loss=loss + 1 / step, learning_rate=0.1, gradient_norm=1.0,
                         tokens=64 * step, seconds=0.1, tokens_per_second=640.0))  # fmt: skip
        log(Evaluated(step=20, split="valid", loss=loss, tokens=100, seconds=0.1))
        log(RunEnded(step=20, status="finished", seconds=3.0))
    return run


@pytest.fixture
def runs():
    return make("first", 1.5), make("second", 1.25)


def test_one_run(runs, capsys):
    assert coterie(["report", "first"]) == 0
    shown = capsys.readouterr()
    assert shown.out.strip() == str(runs[0].report)
    assert "1.500" in runs[0].report.read_text(encoding="utf-8")
    assert "coterie report first OTHER_RUN" in shown.err
    assert "coterie generate" not in shown.err  # it has no checkpoint to write with
    (runs[0].checkpoints / "step-00000020").mkdir()
    assert coterie(["report", "first"]) == 0
    assert "coterie generate first" in capsys.readouterr().err


def test_without_a_name_it_is_the_latest(runs, capsys):
    assert coterie(["report"]) == 0
    assert len(list(runs_root().glob("*/report.html"))) == 1


def test_several_runs(runs, capsys, tmp_path):
    out = tmp_path / "both.html"
    assert coterie(["report", "first", str(runs[1].path), "--out", str(out)]) == 0
    page = out.read_text(encoding="utf-8")
    assert "2 runs compared" in page
    assert "1.250" in page


def test_the_same_run_twice_is_one_run(runs, capsys):
    assert coterie(["report", "first", "first"]) == 0
    assert runs[0].report.exists()


def test_plots_and_json(runs, capsys, tmp_path):
    assert coterie(["report", "first", "second", "--plots", str(tmp_path / "p"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [run["validation_loss"] for run in said["runs"]] == [1.5, 1.25]
    assert (tmp_path / "p" / "second" / "loss.svg").exists()
    assert str(tmp_path / "p" / "first" / "overview.png") in said["plots"]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["frst"], "did you mean “first”"),
        (["first", "seed=2"], "seed=2"),
        (["first", "--out", "."], "folder"),
    ],
)
def test_mistakes_exit_with_2(runs, capsys, words, part):
    assert coterie(["report", *words]) == 2
    assert part in capsys.readouterr().err
    assert not runs[0].report.exists()


def test_a_run_that_has_recorded_nothing(capsys):
    RunDirectory.create(runs_root(), "bare").write_config("seed: 1\n")
    assert coterie(["report", "bare"]) == 2
    assert "recorded nothing" in capsys.readouterr().err
