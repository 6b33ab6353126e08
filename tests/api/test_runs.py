"""Runs from Python: losses to plot, a picture, a page, all from the run's own record."""

from __future__ import annotations

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

import coterie
from coterie.foundation.errors import RunError, UserError
from coterie.foundation.event_log import read_events
from coterie.foundation.runs import RunDirectory, runs_root
from coterie.train.events import StepDone


@pytest.fixture
def run(runs):
    return coterie.runs()["tiny"]


def test_losses_are_those_of_the_record(run):
    losses = run.losses
    steps = [
        event for event in read_events(run.path / "events.jsonl") if isinstance(event, StepDone)
    ]
    assert losses.train.step.tolist() == [1, 2, 3, 4]
    assert losses.train.loss.tolist() == [event.loss for event in steps]
    assert losses.validation.step.tolist() == [2, 4]
    assert losses.validation[-1].loss == run.summary()["validation_loss"]


def test_losses_are_drawn_by_name_and_make_a_table(run):
    axes = Figure().subplots()
    (line,) = axes.plot("step", "loss", data=run.losses.train)
    assert np.array_equal(line.get_ydata(), run.losses.train.loss)
    assert run.losses.train.dtype.names == ("step", "loss")  # a data frame takes them as columns


def test_a_run_draws_itself(run):
    figure = run.plot()
    assert isinstance(figure, Figure)
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert matplotlib.rcParams["axes.grid"] is False  # its style is its own


def test_a_report_is_a_path_that_a_notebook_shows(run):
    page = run.report()
    assert page == run.path / "report.html"
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    shown = page._repr_html_()
    assert "<!doctype" not in shown
    assert "&lt;!doctype html&gt;" in shown


def test_runs_are_listed_and_found(run):
    listed = coterie.runs()
    assert [each.name for each in listed] == ["tiny"]
    assert "<td>tiny</td>" in listed._repr_html_()
    assert repr(run).startswith("<Run tiny: finished, step 4/4, validation loss ")
    assert "validation loss" in run._repr_html_()
    assert str(run.load(device="cpu").generate("It", temperature=0))
    with pytest.raises(RunError, match="did you mean “tiny”"):
        listed["tinny"]


def test_a_name_that_is_markup_is_escaped(places):
    for name in ("a", "b"):
        RunDirectory.create(runs_root(), name).write_config("seed: 1\n")
    (runs_root() / "a").rename(runs_root() / "<i>")
    listed = coterie.runs()
    assert "<i>" not in listed._repr_html_() + listed["<i>"]._repr_html_()


def test_a_run_without_steps_cannot_be_drawn(places):
    RunDirectory.create(runs_root(), "bare").write_config("seed: 1\n")
    bare = coterie.runs()["bare"]
    with pytest.raises(RunError, match="nothing"):
        _ = bare.losses
    (bare.path / "events.jsonl").write_text("")
    with pytest.raises(UserError):
        bare.plot()


def test_looking_at_runs_imports_no_torch():
    code = "import sys, coterie; coterie.runs(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
