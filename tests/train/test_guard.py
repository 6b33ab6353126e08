"""What is taken away from a run, or changed under it, is noticed; the model is not lost."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from coterie.checkpoint import find_checkpoint, list_checkpoints, load_checkpoint
from coterie.cli.app import run as coterie
from coterie.data import prepare
from coterie.data.documents import Document
from coterie.foundation.errors import CoterieError, StoreError, TrainingError
from coterie.foundation.event_log import read_events
from coterie.foundation.events import Notice
from coterie.foundation.runs import RunDirectory, cache_root
from coterie.train import guard as guarding
from coterie.train import train
from coterie.train.events import RunEnded, StepDone


def at_step(number, act):
    def observe(event):
        if isinstance(event, StepDone) and event.step == number:
            act()

    return observe


def shard(split="train") -> Path:
    (found,) = (cache_root() / "stores").glob(f"*/{split}-00000.bin")
    return found


def move_away(path):
    path.rename(path.with_name("moved"))


def replace(path):
    shutil.rmtree(path)
    path.mkdir()


@pytest.mark.parametrize("act", [shutil.rmtree, move_away, replace], ids=lambda act: act.__name__)
@pytest.mark.parametrize("step", [1, 6])
def test_a_run_that_lost_its_directory_is_saved_elsewhere(tiny, new_run, act, step):
    run, whole = new_run("gone"), new_run("whole")
    with pytest.raises(TrainingError, match=r"removed or replaced.*was saved in .*gone.rescued"):
        train(tiny(), run, preset="tiny", observers=[at_step(step, lambda: act(run.path))])
    rescued = RunDirectory(run.path.with_name("gone.rescued"))
    ended = [e for e in read_events(rescued.events) if isinstance(e, RunEnded)]
    assert ended[-1].status == "failed"
    train(tiny(), rescued, preset="tiny", resume=True)
    train(tiny(), whole, preset="tiny")
    ours, theirs = (load_checkpoint(find_checkpoint(each)) for each in (rescued, whole))
    assert ours.step == theirs.step == 6
    assert all(torch.equal(ours.model[name], theirs.model[name]) for name in theirs.model)
    assert [e.step for e in read_events(rescued.events) if isinstance(e, StepDone)] == [
        1, 2, 3, 4, 5, 6,
    ]  # fmt: skip


def test_the_command_says_where_the_model_is(tmp_path, monkeypatch, capsys):
    text = tmp_path / "text.txt"
    text.write_text("To be, or not to be, that is the question.\n" * 60)
    save = guarding.Guard.look
    monkeypatch.setattr(
        guarding.Guard, "look", lambda self: (shutil.rmtree(self._run.path, True), save(self))
    )
    words = ["scale=tiny", "train.steps=4", f"data.source={text}", "--name", "mine"]
    assert coterie(["train", "quickstart", *words]) == 1
    told = capsys.readouterr().err
    assert "mine.rescued" in told
    assert "coterie train --resume" in told


def test_without_any_other_place_the_loss_is_told(tiny, new_run, monkeypatch):
    run = new_run("gone")
    monkeypatch.setattr(guarding.Guard, "_places", lambda self: [])
    with pytest.raises(TrainingError, match="removed or replaced"):
        train(tiny(), run, preset="tiny", observers=[at_step(1, lambda: shutil.rmtree(run.path))])


def test_a_record_and_settings_that_were_removed_are_written_again(tiny, new_run):
    run, heard = new_run("record"), []

    def remove():
        run.events.unlink()
        run.config.unlink()
        shutil.rmtree(run.checkpoints)

    train(tiny(), run, preset="tiny", observers=[at_step(3, remove), heard.append])
    steps = [event.step for event in read_events(run.events) if isinstance(event, StepDone)]
    assert steps == [1, 2, 3, 4, 5, 6]
    told = [notice.message for notice in heard if isinstance(notice, Notice)]
    assert any("record goes on there" in message for message in told)
    assert any("was written again" in message for message in told)
    assert find_checkpoint(run).name == "step-00000006"


def cut(file):
    os.truncate(file, 10)


def garble(file):
    size = file.stat().st_size
    with open(file, "r+b") as out:
        out.write(bytes(size))


@pytest.mark.parametrize("split", ["train", "valid"])
@pytest.mark.parametrize("act", [cut, garble])
def test_a_changed_shard_ends_the_run_and_no_later_checkpoint_is_kept(tiny, new_run, act, split):
    run = new_run("shard")
    harm = at_step(3, lambda: act(shard(split)))
    with pytest.raises(CoterieError, match=rf"{split}-00000.bin"):
        train(tiny(), run, preset="tiny", observers=[harm])
    assert [path.name for path in list_checkpoints(run.checkpoints)] == ["step-00000002"]
    ended = [event for event in read_events(run.events) if isinstance(event, RunEnded)]
    assert ended[-1].status == "failed"


def test_a_shard_that_is_removed_or_replaced_does_not_matter(tiny, new_run):
    run, whole = new_run("replaced"), new_run("whole")

    def act():
        file = shard()
        other = file.with_name("other")
        other.write_bytes(bytes(10))
        os.replace(other, file)
        shard("valid").unlink()

    train(tiny(), run, preset="tiny", observers=[at_step(2, act)])
    train(tiny(), whole, preset="tiny")
    ours, theirs = (load_checkpoint(find_checkpoint(each)) for each in (run, whole))
    assert all(torch.equal(ours.model[name], theirs.model[name]) for name in theirs.model)


def test_resuming_reads_no_garbage(tiny, new_run, tmp_path):
    text = (tmp_path / "text.txt").read_text()
    store = tmp_path / "store"
    tokenizer = tiny().tokenizer.build([text])
    prepare([Document("text", text)], store, tokenizer, split="tail")
    settings = tiny(data={"store": str(store)})
    run = new_run("resumed")
    train(settings, run, preset="tiny")
    garble(store / "train-00000.bin")
    longer = settings.model_copy(update={"train": settings.train.model_copy(update={"steps": 8})})
    with pytest.raises(StoreError, match=r"train-00000.bin does not have its checksum"):
        train(longer, run, preset="tiny", resume=True)
