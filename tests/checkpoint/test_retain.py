"""Retention never removes what is needed: a property over mixtures of every kind of directory."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coterie.checkpoint import check, find_checkpoint, find_problem, list_checkpoints, retain
from coterie.checkpoint.layout import directory_name, step_of

KINDS = ("sound", "other run", "flipped", "no manifest", "bad state", "empty", "foreign", "link")


@pytest.fixture(scope="module")
def library(tmp_path_factory, save):
    """Return a folder of sound checkpoints to copy: steps 1 to 9, in two trainings."""
    root = tmp_path_factory.mktemp("library")
    for step in range(1, 10):
        loss = None if step % 3 == 0 else 10.0 - step if step < 6 else float(step)
        for run in ("a", "b"):
            save(root / run, step, run=run, validation_loss=loss)
    return root


def lay(root: Path, library: Path, step: int, kind: str) -> Path:
    """Put a directory of a kind into the place of a step."""
    path = root / directory_name(step)
    if kind in ("empty", "foreign"):
        path.mkdir()
        if kind == "foreign":
            (path / "notes.txt").write_text("mine")
        return path
    source = library / ("b" if kind == "other run" else "a") / path.name
    if kind == "link":
        path.symlink_to(source)
        return path
    shutil.copytree(source, path)
    if kind == "flipped":
        content = bytearray((path / "model.safetensors").read_bytes())
        content[-1] ^= 1
        (path / "model.safetensors").write_bytes(content)
    elif kind == "no manifest":
        (path / "manifest.json").unlink()
    elif kind == "bad state":  # the best of all, says one that cannot be believed
        state = json.loads((path / "state.json").read_text())
        (path / "state.json").write_text(json.dumps({**state, "validation_loss": -1.0}))
    return path


def loss_of(path: Path) -> float | None:
    return json.loads((path / "state.json").read_text())["validation_loss"]


mixtures = st.dictionaries(st.integers(1, 9), st.sampled_from(KINDS), max_size=6)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(kinds=mixtures, newest=st.integers(2, 8), keep=st.integers(1, 3))
def test_only_sound_ones_of_this_training_count_or_go(
    tmp_path_factory, library, kinds, newest, keep
):
    root = tmp_path_factory.mktemp("mixture")
    kinds = {**kinds, newest: "sound"}
    for step, kind in kinds.items():
        lay(root, library, step, kind)
    path = root / directory_name(newest)
    retain.retain(path, keep)
    ours = sorted(step for step, kind in kinds.items() if kind == "sound" and step <= newest)
    losses = {step: loss_of(library / "a" / directory_name(step)) for step in ours}
    known = {step: loss for step, loss in losses.items() if loss is not None}
    best = {min(known, key=lambda step: (known[step], -step))} if known else set()
    stay = {*ours[-keep:], *best, *(set(kinds) - set(ours))}
    assert {int(each.name[5:]) for each in root.iterdir()} == stay
    assert find_problem(path) is None
    shutil.rmtree(root)


def test_the_one_just_written_and_the_sound_ones_stay(tmp_path, save):
    """Step 900 is sound, 1200 damaged; the run goes on from 900 and is stopped at once."""
    save(tmp_path, 900, keep=1)
    hurt = save(tmp_path, 1200)
    (hurt / "state.json").write_text("{}")
    (tmp_path / "step-99999999").mkdir()
    written = save(tmp_path, 901, keep=1)
    assert [path.name for path in list_checkpoints(tmp_path)] == [
        "step-00000901", "step-00001200", "step-99999999",
    ]  # fmt: skip
    assert find_checkpoint(tmp_path) == written


def test_every_nth_stays_beside_the_newest_and_the_best(tmp_path, save):
    for step in range(1, 9):
        save(tmp_path, step, keep=1, keep_every=3, validation_loss=abs(step - 4.0))
    assert [step_of(path) for path in list_checkpoints(tmp_path)] == [3, 4, 6, 8]


def test_leftovers_of_another_training_are_neither_newest_nor_removed(tmp_path, save):
    for step in (5, 50):
        save(tmp_path, step, run="former", validation_loss=0.1)
    for step in (10, 20, 30):
        save(tmp_path, step, run="mine", keep=1, validation_loss=1.0 + step)
    assert [int(path.name[5:]) for path in list_checkpoints(tmp_path)] == [5, 10, 30, 50]


def test_weights_that_are_not_finite_displace_no_others(tmp_path, save):
    sound = save(tmp_path, 1, keep=1)
    useless = save(tmp_path, 2, keep=1, weight=torch.nan)
    assert list_checkpoints(tmp_path) == [sound, useless]
    assert find_checkpoint(tmp_path) == sound


def test_what_stands_in_the_place_of_a_checkpoint_is_moved_aside(tmp_path, save):
    (tmp_path / "step-00000001").mkdir()
    (tmp_path / "step-00000002").mkdir()
    (tmp_path / "step-00000002" / "notes.txt").write_text("mine")
    (tmp_path / "step-00000003").write_text("a file")
    for step in (1, 2, 3):
        assert find_problem(save(tmp_path, step)) is None
    assert (tmp_path / "step-00000002.aside-1" / "notes.txt").read_text() == "mine"
    assert (tmp_path / "step-00000003.aside-1").read_text() == "a file"


def test_saving_reads_no_earlier_checkpoint_again(tmp_path, save, monkeypatch):
    read: list[Path] = []
    whole = check.find_problem
    monkeypatch.setattr(retain, "find_problem", lambda path: (read.append(path), whole(path))[1])
    for step in range(1, 6):
        save(tmp_path, step, keep=2)
    assert read == []
    touched = tmp_path / "step-00000004"
    file = touched / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    before = file.stat()
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    save(tmp_path, 6, keep=2)
    assert read == [touched]
    assert [path.name[-1] for path in list_checkpoints(tmp_path)] == ["4", "5", "6"]
