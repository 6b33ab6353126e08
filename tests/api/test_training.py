"""Training from Python: the run of `coterie train`, with its errors."""

from __future__ import annotations

import shutil

import pytest

import coterie
from coterie.cli.app import run as command
from coterie.foundation.errors import RunError, SettingsError


@pytest.fixture
def copy(trained, places):
    """Return a copy of the trained run that may be changed."""
    shutil.copytree(trained / "tiny", places / "runs" / "tiny")
    return coterie.runs()["tiny"]


def test_it_is_the_run_that_the_command_line_makes(trained, capsys):
    text = trained.parent / "april.txt"
    words = ["scale=tiny", f"data.source={text}", "data.split=tail", "sample.max_tokens=5",
             "train.steps=4", "train.evaluate_every=2", "train.device=cpu"]  # fmt: skip
    assert command(["train", "quickstart", *words, "--name", "mine"]) == 0
    mine, tiny = coterie.runs()["mine"], coterie.load(trained / "tiny")
    assert mine.load().settings == tiny.settings
    here = mine.losses.train.loss.tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COTERIE_RUNS", str(trained))
        assert here == coterie.runs()["tiny"].losses.train.loss.tolist()
    assert (trained / "tiny" / "report.html").exists()


def test_a_run_goes_on(copy):
    more = copy.resume({"train.steps": 6})
    assert more.losses.train.step.tolist() == [1, 2, 3, 4, 5, 6]
    assert more.load(device="cpu").step == 6
    with pytest.raises(RunError, match=r"only train\.steps"):
        coterie.resume("tiny", {"model": {"width": 64}})


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"train.stepz": 3}, "did you mean “steps”"),
        ({"scale": "tinny"}, "did you mean “tiny”"),
        ({"train": {"steps": "many"}, "seed": -1}, "2 problems"),
        ({3: 3}, "not the name of a setting"),
    ],
)
def test_bad_settings_are_told_and_make_no_run(settings, told, places):
    with pytest.raises(SettingsError, match=told):
        coterie.train("quickstart", settings)
    assert not coterie.runs()
