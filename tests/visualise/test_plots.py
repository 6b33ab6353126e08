"""Plots are files that hold pictures, the same for the same events."""

import xml.etree.ElementTree as ElementTree

import pytest
from matplotlib.image import imread

from coterie.foundation.errors import UserError
from coterie.visualise.plots import write_plots


def test_all_plots_of_a_run_with_experts(synthetic_run, tmp_path):
    run = synthetic_run(steps=60, layers=2, resume_at=50, name="cost$5_$6")
    paths = write_plots(run, tmp_path / "pictures")
    assert [path.name for path in paths] == [
        "loss.svg", "loss.png", "learning_rate.svg", "learning_rate.png", "load.svg", "load.png",
        "overview.png",
    ]  # fmt: skip
    for path in paths:
        if path.suffix == ".png":
            picture = imread(path)
            assert picture.std() > 0.02, f"{path} is blank"
        else:
            ElementTree.parse(path)
    loss = (tmp_path / "pictures" / "loss.svg").read_text()
    for words in ("training", "validation", "resumed", "nats per token", "cost$5_$6"):
        assert words in loss


def test_the_same_events_give_the_same_file(synthetic_run, tmp_path):
    run = synthetic_run(steps=40, layers=1)
    write_plots(run, tmp_path / "a")
    write_plots(run, tmp_path / "b")
    for name in ("loss.svg", "load.svg"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_model_without_experts_has_no_load(synthetic_run, tmp_path):
    names = [path.name for path in write_plots(synthetic_run(steps=40, layers=0), tmp_path / "p")]
    assert "load.png" not in names
    assert "overview.png" in names


def test_a_run_that_has_just_begun_has_no_plots(synthetic, synthetic_run, tmp_path):
    from coterie.foundation.event_log import EventLog

    run = synthetic_run(steps=10)
    run.events.unlink()
    with EventLog(run.events) as log:
        log.append(synthetic(steps=1)[0])
    assert write_plots(run, tmp_path / "p") == []


def test_a_folder_that_cannot_be(synthetic_run, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError):
        write_plots(synthetic_run(steps=20), tmp_path / "taken")
