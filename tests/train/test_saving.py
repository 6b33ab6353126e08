"""Saving in the background writes what the foreground does, and what goes wrong there is told."""

from __future__ import annotations

import errno
import json
import threading

import pytest

from coterie.checkpoint import list_checkpoints
from coterie.checkpoint import write as writing
from coterie.foundation.errors import UserError
from coterie.foundation.event_log import read_events
from coterie.train import train
from coterie.train.events import CheckpointSaved, RunEnded, StepDone

SAVED = ("model.safetensors", "optimizer.safetensors", "config.yaml", "tokenizer.json")


def saved(run):
    return [event for event in read_events(run.events) if isinstance(event, CheckpointSaved)]


def content(path):
    state = json.loads((path / "state.json").read_text())
    state.pop("train_seconds")
    bytes_of = {name: (path / name).read_bytes() for name in SAVED if name != "config.yaml"}
    return bytes_of, state


def gated(monkeypatch):
    """Let no checkpoint become whole before the gate is opened; return the gate."""
    gate, manifest = threading.Event(), writing.write_manifest

    def wait(*arguments):
        assert gate.wait(60)
        return manifest(*arguments)

    monkeypatch.setattr(writing, "write_manifest", wait)
    return gate


def test_the_background_writes_the_bytes_of_the_foreground(tiny, new_run, monkeypatch):
    """With an average and Muon; the first checkpoint is held back until step 3 has moved on."""
    changes = {"ema": 0.9, "optimizer": {"kind": "muon"}, "steps": 5}
    plain, behind = new_run("plain"), new_run("behind")
    train(tiny(train=changes), plain, preset="tiny")
    gate = gated(monkeypatch)

    def look(event):
        if isinstance(event, StepDone) and event.step == 3:
            assert not list_checkpoints(behind.checkpoints)  # step 2's is on its way
            gate.set()

    told = tiny(train={**changes, "save_in_background": True})
    train(told, behind, preset="tiny", observers=[look])
    ours, theirs = list_checkpoints(behind.checkpoints), list_checkpoints(plain.checkpoints)
    assert [path.name for path in ours] == [path.name for path in theirs]
    assert len(ours) == 3
    for one, other in zip(ours, theirs, strict=True):
        assert content(one) == content(other)
    assert [event.step for event in saved(behind)] == [2, 4, 5]
    for event in saved(behind):
        assert event.stood is not None
        assert event.stood <= event.seconds + 1e-3


def test_a_disk_that_fills_up_in_the_background_stops_the_run(tiny, new_run, monkeypatch):
    run = new_run("full")

    def no_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill_up(event):
        if isinstance(event, CheckpointSaved) and event.step == 2:
            monkeypatch.setattr(writing, "save_tokenizer", no_space)

    with pytest.raises(UserError, match="disk is full"):
        train(
            tiny(train={"save_in_background": True, "steps": 50}), run, preset="tiny",
            observers=[fill_up],
        )  # fmt: skip
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-00000002"]
    (ended,) = (event for event in read_events(run.events) if isinstance(event, RunEnded))
    assert ended.status == "failed"
    assert ended.step < 8  # the next save at the latest
    monkeypatch.undo()
    train(tiny(), run, preset="tiny", resume=True)
    assert list_checkpoints(run.checkpoints)[-1].name == "step-00000006"


def test_what_is_being_written_becomes_whole_where_the_run_fails(tiny, new_run, monkeypatch):
    run, gate = new_run("failing"), gated(monkeypatch)

    def fail(event):
        if isinstance(event, StepDone) and event.step == 3:
            threading.Timer(0.2, gate.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny(train={"save_in_background": True}), run, preset="tiny", observers=[fail])
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-00000002"]
    assert [event.step for event in saved(run)] == [2]
