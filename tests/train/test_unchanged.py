"""A resumed run's settings are those of its checkpoint, or what was changed on purpose is named."""

from __future__ import annotations

import shutil

import pytest
import torch
import yaml

from coterie.checkpoint import find_checkpoint, load_checkpoint
from coterie.cli.app import run as coterie
from coterie.foundation.event_log import read_events
from coterie.foundation.events import Notice
from coterie.foundation.layers import read_settings_file
from coterie.foundation.runs import find_run
from coterie.train.events import RunStarted

TEXT = "To be, or not to be, that is the question:\nWhether tis nobler in the mind to suffer\n" * 40
SMALL = ("scale=tiny", "train.steps=4", "train.evaluate_every=2", "train.checkpoint_every=2",
         "sample.max_tokens=5")  # fmt: skip


@pytest.fixture
def run(tmp_path, capsys):
    """Return a run of four steps."""
    (tmp_path / "book.txt").write_text(TEXT)
    words = [*SMALL, f"data.source={tmp_path / 'book.txt'}", "--name", "mine"]
    assert coterie(["train", "quickstart", *words]) == 0
    capsys.readouterr()
    return find_run("mine")


def edit(run, key, value):
    """Change one value of a run's config.yaml by hand."""
    values = read_settings_file(run.config)
    *parts, last = key.split(".")
    inner = values
    for part in parts:
        inner = inner[part]
    assert inner[last] != value
    inner[last] = value
    run.config.write_text(yaml.safe_dump(values))


def weights(run):
    return load_checkpoint(find_checkpoint(run)).model


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 12),
        ("model.position.theta", 20000.0),
        ("train.optimizer.learning_rate", 0.5),
        ("train.schedule.warmup", 0.4),
        ("train.steps", 9),
        ("train.batch_size", 64),
        ("train.gradient_accumulation", 2),
        ("data.split_seed", 7),
        ("model.norm.epsilon", 1e-3),
    ],
)
def test_what_decides_the_weights_must_be_as_it_was(run, capsys, key, value):
    edit(run, key, value)
    before = weights(run)
    assert coterie(["train", "--resume", "mine"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert key in told or "text that this run trains on has changed" in told
    assert "inside Coterie" not in told
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(run).items())


def test_the_hint_restores_what_was_changed(run, capsys):
    edit(run, "seed", 12)
    assert coterie(["train", "--resume", "mine", "train.steps=6"]) == 2
    assert "cp " in capsys.readouterr().err
    shutil.copy(find_checkpoint(run) / "config.yaml", run.config)
    assert coterie(["train", "--resume", "mine", "train.steps=6"]) == 0
    assert find_checkpoint(run).name == "step-00000006"


def test_what_decides_no_weight_is_told(run, capsys):
    edit(run, "train.log_every", 2)
    assert coterie(["train", "--resume", "mine", "train.steps=6"]) == 0
    told = [event.message for event in read_events(run.events) if isinstance(event, Notice)]
    assert "train.log_every is 2 from here on; it was 1." in told
    assert "train.steps is 6 from here on; it was 4." in told


def test_a_change_named_before_holds_though_no_checkpoint_tells_of_it(run, capsys):
    """A kill after `train.steps=8` and before the next checkpoint; then a plain --resume."""
    before = find_checkpoint(run)
    shutil.copytree(before, run.path / "kept")
    assert coterie(["train", "--resume", "mine", "train.steps=8"]) == 0
    for each in run.checkpoints.iterdir():
        shutil.rmtree(each)
    shutil.move(run.path / "kept", before)
    assert coterie(["train", "--resume", "mine"]) == 0
    assert find_checkpoint(run).name == "step-00000008"


@pytest.mark.parametrize("config", [b"[1]", b"model: [", b"seed: x\n", b"", b"\xff"])
def test_settings_that_are_broken_are_refused_in_words(run, capsys, config):
    run.config.write_bytes(config)
    assert coterie(["train", "--resume", "mine"]) == 2
    assert "inside Coterie" not in capsys.readouterr().err


def test_moved_text_is_named_and_must_be_the_same(run, capsys, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "book.txt").rename(tmp_path / "elsewhere" / "book 2.txt")
    assert coterie(["train", "--resume", "mine", "train.steps=6"]) == 2
    assert coterie(["train", "--resume", "mine", "train.steps=6", f"data.source={moved}"]) == 0
    assert read_settings_file(run.config)["data"]["source"] == str(moved)
    (tmp_path / "other.txt").write_text(TEXT[::-1])
    words = ["train.steps=8", f"data.source={tmp_path / 'other.txt'}"]
    capsys.readouterr()
    assert coterie(["train", "--resume", "mine", *words]) == 2
    assert "has changed" in capsys.readouterr().err
    assert coterie(["train", "--resume", "mine", "data.valid_fraction=0.5"]) == 2


def test_leftovers_of_another_training_are_not_gone_on_from(run, capsys):
    stale = run.path.rename(run.path.with_name("former"))
    text = read_settings_file(stale / "config.yaml")["data"]["source"]
    words = [*SMALL, f"data.source={text}", "seed=5", "--name", "mine"]
    assert coterie(["train", "quickstart", *words]) == 0
    shutil.rmtree(run.checkpoints / "step-00000004")
    shutil.copytree(stale / "checkpoints" / "step-00000004", run.checkpoints / "step-00000004")
    capsys.readouterr()
    assert coterie(["train", "--resume", "mine", "train.steps=6"]) == 0
    assert "left over from another training" in " ".join(capsys.readouterr().err.split())
    starts = [event for event in read_events(run.events) if isinstance(event, RunStarted)]
    assert starts[-1].resumed_from == 2
