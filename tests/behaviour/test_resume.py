"""A run that was stopped and resumed ends bit for bit where an uninterrupted one ends."""

from __future__ import annotations

import itertools
import math
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from coterie.checkpoint import list_checkpoints, load_checkpoint, step_of
from coterie.foundation.errors import CheckpointError, Interrupted
from coterie.foundation.event_log import read_events
from coterie.foundation.layers import dump_yaml, read_settings_file
from coterie.foundation.runs import RunDirectory
from coterie.train import RunSettings, machine, precision, train
from coterie.train.events import CheckpointDamaged, CheckpointSaved, Evaluated, RunEnded, StepDone
from coterie.train.precision import LossScale
from coterie.train.session import open_session

TEXT = "".join(f"{n} and {n + 1} make {2 * n + 1}; so says the {'king' if n % 3 else 'fool'}.\n"
               for n in range(40))  # fmt: skip


@pytest.fixture(autouse=True)
def known_machine(monkeypatch):
    monkeypatch.setattr(machine, "measure_matmul", lambda precision, seconds=0.0: 1e11)


def make_settings(folder: Path, text: str = TEXT, **train_changes: object) -> RunSettings:
    source = folder / "text.txt"
    source.write_text(text, encoding="utf-8")
    return RunSettings.model_validate(
        {
            "seed": 11,
            "data": {"source": str(source), "valid_fraction": 0.1, "split": "tail"},
            "tokenizer": "characters",
            "model": {
                "layers": 2,
                "width": 16,
                "context": 16,
                "dropout": 0.1,
                "attention": {"kind": "grouped", "heads": 2},
                "feedforward": {
                    "kind": "moe",
                    "experts": [{"mlp": {"kind": "gated", "width": 16}, "count": 4}],
                    "experts_per_token": 2,
                    "balance": {"kind": "bias"},
                },
            },
            "train": {
                "steps": 12,
                "batch_size": 4,
                "gradient_accumulation": 2,
                "clip": {"kind": "adaptive", "percentile": 50},
                "evaluate_every": 3,
                "checkpoint_every": 4,
                "keep": 3,
                "sample_every": 0,
                **train_changes,
            },
        }
    )


def newest(run: RunDirectory):
    return load_checkpoint(list_checkpoints(run.checkpoints)[-1])


def assert_same_end(one: RunDirectory, other: RunDirectory) -> None:
    """Weights, moments, states and the recorded losses are equal to the last bit."""
    ours, theirs = newest(one), newest(other)
    for part in ("model", "optimizer"):
        expected = getattr(ours, part)
        assert set(expected) == set(getattr(theirs, part))
        for name, tensor in expected.items():
            assert torch.equal(tensor, getattr(theirs, part)[name]), name
    for state in (ours.state, theirs.state):
        state.pop("train_seconds")
    assert ours.state == theirs.state
    assert told(one) == told(other)


def told(run: RunDirectory) -> list[tuple[object, ...]]:
    """Return what a run's record says about losses, by step."""
    found: list[tuple[object, ...]] = []
    for event in read_events(run.events):
        if isinstance(event, StepDone):
            found.append((event.step, event.loss, event.gradient_norm, event.learning_rate))
        if isinstance(event, Evaluated):
            found.append((event.step, "valid", event.loss))
    return found


def ended(run: RunDirectory) -> str:
    """Return what a run's record says of its end."""
    return next(e.message for e in read_events(run.events) if isinstance(e, RunEnded))


def stop_after(step: int):
    def press(event: object) -> None:
        if isinstance(event, StepDone) and event.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    return press


@pytest.mark.parametrize(
    "optimizer",
    [
        "adamw",
        "muon",
        *(pytest.param(each, marks=pytest.mark.exhaustive) for each in ("adafactor", "adamw8bit")),
    ],
)
def test_interrupted_often_ends_the_same(tmp_path, optimizer):
    # 58 characters have 42 windows, which last for ten steps and a half: there are epochs to cross.
    settings = make_settings(tmp_path, TEXT[:64], optimizer=optimizer, steps=24)
    whole = RunDirectory.create(tmp_path, "whole")
    train(settings, whole, preset="tiny")
    broken = RunDirectory.create(tmp_path, "broken")
    for step in (1, 11, 22):
        with pytest.raises(Interrupted):
            train(settings, broken, preset="tiny", observers=[stop_after(step)], resume=step > 1)
        assert newest(broken).step == step
    train(settings, broken, preset="tiny", resume=True)
    assert_same_end(whole, broken)


def test_float16_goes_on_with_the_scale_that_growth_and_overflow_left(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "LossScale", partial(LossScale, 2.0**19, growth_interval=2))
    settings = make_settings(tmp_path, precision="float16", steps=11, evaluate_every=0)
    whole, broken = (RunDirectory.create(tmp_path, name) for name in ("whole", "broken"))
    train(settings, whole, preset="tiny")
    steps = [event for event in read_events(whole.events) if isinstance(event, StepDone)]
    skipped = [event.step for event in steps if not math.isfinite(event.gradient_norm)]
    assert [gap for gap in itertools.pairwise(skipped) if gap[1] <= 9], "grown, then overflown"
    with pytest.raises(Interrupted):
        train(settings, broken, preset="tiny", observers=[stop_after(9)])
    left = newest(broken).state["loss_scale"]
    assert left["scale"] < 2.0**19
    assert left["good_steps"] > 0
    train(settings, broken, preset="tiny", resume=True)
    assert newest(whole).state["loss_scale"] == newest(broken).state["loss_scale"]
    assert_same_end(whole, broken)


def test_a_truncated_newest_checkpoint_is_named_and_the_one_before_used(tmp_path):
    settings = make_settings(tmp_path)
    whole = RunDirectory.create(tmp_path, "whole")
    train(settings, whole, preset="tiny")
    hurt = RunDirectory.create(tmp_path, "hurt")
    with pytest.raises(Interrupted):
        train(settings, hurt, preset="tiny", observers=[stop_after(9)])
    weights = hurt.checkpoints / "step-00000009" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    heard: list[object] = []
    train(settings, hurt, preset="tiny", observers=[heard.append], resume=True)
    (damage,) = [event for event in heard if isinstance(event, CheckpointDamaged)]
    assert damage.path.endswith("step-00000009")
    assert "model.safetensors" in damage.problem
    assert_same_end(whole, hurt)


def test_a_run_without_a_checkpoint_begins_anew(tmp_path):
    settings = make_settings(tmp_path)
    whole, empty = (RunDirectory.create(tmp_path, name) for name in ("whole", "empty"))
    train(settings, whole, preset="tiny")
    train(settings, empty, preset="tiny", resume=True)
    assert_same_end(whole, empty)


def test_what_does_not_belong_is_refused(tmp_path):
    settings = make_settings(tmp_path)
    run = RunDirectory.create(tmp_path, "mine")
    with pytest.raises(Interrupted):
        train(settings, run, preset="tiny", observers=[stop_after(2)])
    model = settings.model.model_copy(update={"width": 32})
    with pytest.raises(CheckpointError, match="another model"):
        train(settings.model_copy(update={"model": model}), run, preset="tiny", resume=True)
    with pytest.raises(CheckpointError, match="another optimizer"):
        train(make_settings(tmp_path, optimizer="muon"), run, preset="tiny", resume=True)
    (tmp_path / "text.txt").write_text(TEXT.upper(), encoding="utf-8")
    with pytest.raises(CheckpointError, match="tokenizer"):
        train(settings, run, preset="tiny", resume=True)
    (tmp_path / "text.txt").write_text("".join(reversed(TEXT)), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"text .* has changed"):
        train(settings, run, preset="tiny", resume=True)


CHILD = """
import sys, torch
from pathlib import Path
torch.set_num_threads(1)
from coterie.foundation.layers import file_layer, load_settings
from coterie.foundation.runs import RunDirectory
from coterie.train import RunSettings, machine, train
machine.measure_matmul = lambda precision, seconds=0.0: 1e11
settings = load_settings(RunSettings, [file_layer(sys.argv[1])]).settings
train(settings, RunDirectory(Path(sys.argv[2])), preset="tiny")
"""


def test_killed_at_a_random_moment_and_resumed_ends_the_same(tmp_path):
    """`kill -9`, wherever it falls: in a step, while saving, while evaluating."""
    settings = make_settings(tmp_path, steps=30, checkpoint_every=2, optimizer="muon")
    config = tmp_path / "settings.yaml"
    config.write_text(dump_yaml(settings), encoding="utf-8")
    assert RunSettings.model_validate(read_settings_file(config)) == settings
    whole, killed = (RunDirectory.create(tmp_path, name) for name in ("whole", "killed"))
    train(settings, whole, preset="tiny")
    kill_after(config, killed, seconds=random.uniform(0.0, 0.15))
    train(settings, killed, preset="tiny", resume=True)
    assert_same_end(whole, killed)


def kill_after(config: Path, run: RunDirectory, seconds: float) -> None:
    """Train in a process of its own and kill it some time after it has recorded a step."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(config), str(run.path)])
    try:
        deadline = time.monotonic() + 600
        while not (run.events.exists() and '"step"' in run.events.read_text()):
            assert child.poll() is None, "training failed"
            assert time.monotonic() < deadline, "training never began"
            time.sleep(0.01)
        time.sleep(seconds)
    finally:
        child.kill()
        child.wait()
    assert not any(event.kind == "run_ended" for event in read_events(run.events))


def test_a_checkpoint_of_step_0_holds_the_first_weights_and_changes_nothing(tmp_path):
    settings = make_settings(tmp_path, checkpoint_first=True, keep=10)
    plain = make_settings(tmp_path)
    asked, other, fresh = (RunDirectory.create(tmp_path, n) for n in ("asked", "other", "fresh"))
    train(settings, asked, preset="tiny")
    train(plain, other, preset="tiny")
    assert [step_of(path) for path in list_checkpoints(asked.checkpoints)] == [0, 4, 8, 12]
    assert [step_of(path) for path in list_checkpoints(other.checkpoints)] == [4, 8, 12]
    first = load_checkpoint(list_checkpoints(asked.checkpoints)[0])
    for name, tensor in open_session(settings, fresh).decoder.state_dict().items():
        assert torch.equal(tensor, first.model[name]), name
    assert first.optimizer == {}
    assert_same_end(asked, other)


def test_resumed_from_step_0_ends_the_same(tmp_path):
    settings = make_settings(tmp_path, checkpoint_first=True)
    whole, broken = (RunDirectory.create(tmp_path, name) for name in ("whole", "broken"))
    train(settings, whole, preset="tiny")

    def fall(event: object) -> None:
        if isinstance(event, StepDone):
            raise KeyboardInterrupt  # at once, in the first step

    with pytest.raises(KeyboardInterrupt):
        train(settings, broken, preset="tiny", observers=[fall])
    assert newest(broken).step == 0
    assert ended(broken) == "stopped at once; the latest checkpoint is saved"
    train(settings, broken, preset="tiny", resume=True)
    assert_same_end(whole, broken)
    saved = [e.step for e in read_events(broken.events) if isinstance(e, CheckpointSaved)]
    assert saved == [0, 4, 8, 12]  # of step 0 once
    # Without that first checkpoint there is nothing yet to go on from, and the run says so.
    bare = RunDirectory.create(tmp_path, "bare")
    with pytest.raises(KeyboardInterrupt):
        train(make_settings(tmp_path), bare, preset="tiny", observers=[fall])
    assert ended(bare) == "stopped at once; nothing was saved"
