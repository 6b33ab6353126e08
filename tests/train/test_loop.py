"""The loop: what it records, what it leaves behind, and how it ends."""

from __future__ import annotations

import errno
import os
import signal

import pytest
import torch

from coterie.checkpoint import list_checkpoints, load_checkpoint, load_model
from coterie.checkpoint import write as writing
from coterie.foundation.errors import Interrupted, TrainingError, UserError
from coterie.foundation.event_log import read_events
from coterie.foundation.events import Notice
from coterie.foundation.runs import find_run
from coterie.foundation.settings import Settings
from coterie.train import train
from coterie.train.events import (
    CheckpointSaved,
    Evaluated,
    LoadMeasured,
    RunEnded,
    RunStarted,
    Sampled,
    StepDone,
)


def of(events, kind):
    return [event for event in events if isinstance(event, kind)]


def test_a_run_tells_its_story(tiny, new_run):
    run, heard = new_run("story"), []
    settings = tiny(train={"load_every": 2})
    result = train(settings, run, preset="tiny", observers=[heard.append])
    events = read_events(run.events)
    assert events == heard
    (started,) = of(events, RunStarted)
    assert started.tokens_per_step == 64
    assert started.active_parameters < started.parameters
    assert started.machine["torch"] == torch.__version__
    assert [event.step for event in of(events, StepDone)] == [1, 2, 3, 4, 5, 6]
    assert [event.tokens for event in of(events, StepDone)] == [64 * n for n in range(1, 7)]
    assert [event.step for event in of(events, Evaluated)] == [3, 6]
    assert [event.step for event in of(events, Sampled)] == [0, 3, 6]
    assert [event.step for event in of(events, CheckpointSaved)] == [2, 4, 6]
    loads = of(events, LoadMeasured)
    assert [(load.step, load.steps) for load in loads] == [(2, 2), (4, 2), (6, 2)]
    for load in loads:
        for layer in load.layers:  # 2 steps x 64 tokens x 2 experts each: none is lost
            assert sum(layer.load) == 2 * 64 * 2
            assert layer.bias is not None
            assert len(layer.bias) == 4
    (ended,) = of(events, RunEnded)
    assert (ended.status, ended.step) == ("finished", 6)
    assert result.steps == 6
    assert result.loss == of(events, StepDone)[-1].loss
    assert result.validation_loss == of(events, Evaluated)[-1].loss
    assert result.checkpoint == list_checkpoints(run.checkpoints)[-1]
    text = (run.samples / "step-00000006.txt").read_text()
    assert text.startswith("3 times")


def test_the_run_directory_counts_as_a_run_and_its_model_loads(tiny, new_run):
    run = new_run("loadable")
    result = train(tiny(), run, preset="tiny")
    for target in ("loadable", "latest", str(run.path), str(result.checkpoint), run):
        loaded = load_model(target)
        assert loaded.step == 6
        assert not loaded.decoder.training
        for name, tensor in load_checkpoint(result.checkpoint).model.items():
            assert torch.equal(loaded.decoder.state_dict()[name], tensor), name
    assert load_model("loadable", step=4).step == 4
    assert find_run("latest") == run


def test_the_loss_falls_to_memory_on_little_text(tiny, new_run):
    settings = tiny(train={"steps": 60, "evaluate_every": 0, "checkpoint_every": 0})
    run = new_run("learns")
    result = train(settings, run, preset="tiny")
    first = of(read_events(run.events), StepDone)[0].loss
    assert result.loss is not None
    assert result.loss < 0.75 * first


def weights_of(run):
    return load_checkpoint(list_checkpoints(run.checkpoints)[-1])


def assert_same(one, other):
    for part in ("model", "optimizer"):
        ours, theirs = getattr(one, part), getattr(other, part)
        assert set(ours) == set(theirs)
        for name, tensor in ours.items():
            assert torch.equal(tensor, theirs[name]), name


def test_evaluating_sampling_and_saving_change_nothing(tiny, new_run):
    busy = tiny(
        model={"dropout": 0.1},
        train={"evaluate_every": 1, "sample_every": 1, "checkpoint_every": 1, "steps": 5},
    )
    quiet = tiny(
        model={"dropout": 0.1},
        train={"evaluate_every": 0, "sample_every": 0, "checkpoint_every": 0, "steps": 5},
    )

    def draws(event):
        torch.rand(3)

    ours, theirs = new_run("busy"), new_run("quiet")
    train(busy, ours, preset="tiny", observers=[draws])
    train(quiet, theirs, preset="tiny")
    assert_same(weights_of(ours), weights_of(theirs))


def test_the_cut_into_micro_batches_changes_only_rounding(tiny, new_run):
    results = {}
    for pieces in (1, 2, 4):
        run = new_run(f"pieces-{pieces}")
        train(tiny(train={"gradient_accumulation": pieces}), run, preset="tiny")
        results[pieces] = weights_of(run).model
    for pieces in (2, 4):
        for name, tensor in results[1].items():
            torch.testing.assert_close(results[pieces][name], tensor, atol=1e-4, rtol=1e-3)


def test_recomputing_blocks_gives_the_same_bits_and_counts_loads_once(tiny, new_run):
    runs = {}
    for recompute in (False, True):
        runs[recompute] = new_run(f"recompute-{recompute}")
        settings = tiny(
            model={"dropout": 0.1}, train={"activation_checkpointing": recompute, "steps": 3}
        )
        train(settings, runs[recompute], preset="tiny")
    assert_same(weights_of(runs[True]), weights_of(runs[False]))
    loads = [
        [event.layers for event in of(read_events(run.events), LoadMeasured)]
        for run in runs.values()
    ]
    assert loads[0] == loads[1]


def test_ctrl_c_ends_after_the_step_with_a_checkpoint(tiny, new_run):
    run = new_run("stopped")

    def press(event):
        if isinstance(event, StepDone) and event.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted) as caught:
        train(tiny(), run, preset="tiny", observers=[press])
    assert caught.value.exit_code == 130
    assert "coterie train --resume stopped" in (caught.value.hint or "")
    assert signal.getsignal(signal.SIGINT) is before
    assert load_checkpoint(list_checkpoints(run.checkpoints)[-1]).step == 3
    (ended,) = of(read_events(run.events), RunEnded)
    assert (ended.status, ended.step) == ("interrupted", 3)

    whole = new_run("whole")
    train(tiny(), run, preset="tiny", resume=True)
    train(tiny(), whole, preset="tiny")
    assert_same(weights_of(run), weights_of(whole))


def test_a_second_ctrl_c_ends_at_once(tiny, new_run):
    run = new_run("impatient")

    def press_twice(event):
        if isinstance(event, StepDone) and event.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(tiny(), run, preset="tiny", observers=[press_twice])
    assert load_checkpoint(list_checkpoints(run.checkpoints)[-1]).step == 2
    (ended,) = of(read_events(run.events), RunEnded)
    assert ended.status == "interrupted"


def test_a_gradient_that_is_not_finite_is_stopped_and_named(tiny, new_run):
    run = new_run("diverged")
    settings = tiny(train={"clip": {"kind": "none"}, "checkpoint_every": 1})
    settings = settings.model_copy(
        update={"train": settings.train.model_copy(update={"optimizer": Exploding()})}
    )
    with pytest.raises(TrainingError, match=r"At step 3 the gradient of \S+ is not finite"):
        train(settings, run, preset="tiny")
    newest = weights_of(run)
    assert newest.step == 2  # the step that failed was never made
    (ended,) = of(read_events(run.events), RunEnded)
    assert ended.status == "failed"
    assert "is not finite" in ended.message


class Exploding(Settings):
    """Optimizer settings whose second step turns one weight into NaN."""

    kind: str = "outside:Exploding"

    def state_bytes(self, parameters):
        return 0

    def build(self, parameters):
        return ExplodingOptimizer(parameters[-1].tensor)


class ExplodingOptimizer:
    learning_rate = 1.0

    def __init__(self, tensor):
        self._tensor = tensor

    def step(self, step, multiplier):
        if step == 1:
            self._tensor.data.view(-1)[0] = float("nan")

    def state(self):
        return {}

    def load_state(self, state):
        return set()


def test_an_observer_that_fails_is_dismissed_and_the_run_goes_on(tiny, new_run):
    run, heard = new_run("guest"), []

    def broken(event):
        if isinstance(event, StepDone):
            raise RuntimeError("no space in the cloud")

    train(tiny(), run, preset="tiny", observers=[broken, heard.append])
    warnings = [notice for notice in of(heard, Notice) if notice.level == "warning"]
    assert len(warnings) == 1
    assert "no space in the cloud" in warnings[0].message
    assert of(heard, RunEnded)[0].status == "finished"


def test_a_finished_run_can_be_trained_for_longer(tiny, new_run):
    run = new_run("longer")
    train(tiny(train={"schedule": {"kind": "constant"}}), run, preset="tiny")
    again = train(tiny(train={"schedule": {"kind": "constant"}}), run, preset="tiny", resume=True)
    assert again.steps == 6
    assert again.validation_loss is not None
    settings = tiny(train={"steps": 8, "schedule": {"kind": "constant"}})
    assert train(settings, run, preset="tiny", resume=True).steps == 8
    assert [event.step for event in of(read_events(run.events), StepDone)] == list(range(1, 9))


def test_log_every_records_fewer_steps_with_the_same_values(tiny, new_run):
    runs = {}
    for every in (1, 4):
        runs[every] = new_run(f"log-{every}")
        train(tiny(train={"log_every": every}), runs[every], preset="tiny")
    dense, sparse = (of(read_events(runs[every].events), StepDone) for every in (1, 4))
    assert [event.step for event in sparse] == [4, 6]
    for event in sparse:
        assert event.loss == dense[event.step - 1].loss
        assert event.tokens == dense[event.step - 1].tokens


def test_a_run_that_cannot_begin_leaves_nothing_behind(tiny, new_run):
    run = new_run("impossible")
    with pytest.raises(UserError):
        train(tiny(data={"source": "no/such/file.txt"}), run, preset="tiny")
    assert not run.path.exists()


def test_a_full_disk_keeps_the_earlier_checkpoint(tiny, new_run, monkeypatch):
    run = new_run("full")

    def fill_up(event):
        if isinstance(event, StepDone) and event.step == 3:
            monkeypatch.setattr(writing, "save_tokenizer", no_space)

    def no_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match="disk is full"):
        train(tiny(), run, preset="tiny", observers=[fill_up])
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-00000002"]
    assert of(read_events(run.events), RunEnded)[0].status == "failed"
    monkeypatch.undo()
    assert weights_of(run).step == 2
