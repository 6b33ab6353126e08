"""What goes by the validation loss: early stopping, plateaus, the average that is judged."""

import pytest
import torch

from coterie.checkpoint import list_checkpoints, load_checkpoint, step_of
from coterie.checkpoint.state import read_state
from coterie.evaluate.validation import Validation
from coterie.foundation.errors import RunError, SettingsError
from coterie.foundation.event_log import read_events
from coterie.foundation.events import Notice
from coterie.train import evaluation, train
from coterie.train.average import trained_name
from coterie.train.events import Evaluated, StepDone

EVERY = {"evaluate_every": 1, "checkpoint_every": 0, "sample_every": 0, "log_every": 1}


def losses_as(monkeypatch, losses):
    """Let evaluations find these losses, one after another."""
    left = iter(losses)

    def validate(*args, **kwargs):
        return Validation(next(left), 10, 0.1, ())

    monkeypatch.setattr(evaluation, "validate", validate)


def notices(run):
    return [event.message for event in read_events(run.events) if isinstance(event, Notice)]


def test_a_run_that_gets_no_better_ends_and_keeps_its_best(tiny, new_run, monkeypatch):
    losses_as(monkeypatch, [2.0, 1.5, 1.51, 1.6, 1.7, 9.0])
    run = new_run("early")
    settings = tiny(train={**EVERY, "patience": 3, "improvement": 0.01, "keep": 1})
    train(settings, run, preset="tiny")
    assert sum(isinstance(event, StepDone) for event in read_events(run.events)) == 5
    assert [step_of(path) for path in list_checkpoints(run.checkpoints)] == [2, 5]
    (said,) = [told for told in notices(run) if "Stopped early" in told]
    assert "nothing lower than 1.5000 by more than 0.01" in said
    assert "--step 2" in said
    again = train(settings, run, preset="tiny", resume=True)
    assert again.steps == 5


def test_a_plateau_lowers_the_rate_and_a_resumed_run_goes_on_with_it(tiny, new_run, monkeypatch):
    schedule = {"kind": "plateau", "patience": 2, "factor": 0.5, "warmup": 0}
    losses_as(monkeypatch, [2.0, 2.5, 2.5, 2.5, 2.5, 2.5, 1.9, 2.0])
    run = new_run("plateau")
    settings = tiny(train={**EVERY, "schedule": schedule, "checkpoint_every": 4})
    train(settings, run, preset="tiny")
    longer = tiny(train={**EVERY, "schedule": schedule, "checkpoint_every": 4, "steps": 8})
    train(longer, run, preset="tiny", resume=True)
    rates = [
        event.learning_rate for event in read_events(run.events) if isinstance(event, StepDone)
    ]
    peak = settings.train.optimizer.learning_rate
    assert [rate / peak for rate in rates] == [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25]
    assert read_state(list_checkpoints(run.checkpoints)[-1]).plateaus == 2


def test_what_is_evaluated_and_saved_is_the_average_and_a_resumed_run_is_equal(tiny, new_run):
    changes = {
        "ema": 0.9, "schedule": {"kind": "constant", "warmup": 0},
        "evaluate_every": 3, "checkpoint_every": 3, "sample_every": 0,
    }  # fmt: skip
    straight, plain, stopped = new_run("straight"), new_run("plain"), new_run("stopped")
    train(tiny(train=changes), straight, preset="tiny")
    train(tiny(train={**changes, "ema": None}), plain, preset="tiny")
    train(tiny(train={**changes, "steps": 3}), stopped, preset="tiny")
    train(tiny(train=changes), stopped, preset="tiny", resume=True)
    one, other, without = (
        load_checkpoint(list_checkpoints(run.checkpoints)[-1]) for run in (straight, stopped, plain)
    )
    for name, tensor in one.model.items():
        assert torch.equal(tensor, other.model[name]), name
    for name, tensor in one.optimizer.items():
        assert torch.equal(tensor, other.optimizer[name]), name
    # Training itself is as without an average.
    for name, tensor in without.model.items():
        if trained_name(name) in one.optimizer:
            assert torch.equal(one.optimizer[trained_name(name)], tensor), name
            assert not torch.equal(one.model[name], tensor), name
    first, second = (
        [event.loss for event in read_events(run.events) if isinstance(event, Evaluated)]
        for run in (straight, plain)
    )
    assert all(a != b for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("judging", [{"patience": 2}, {"schedule": {"kind": "plateau"}}])
def test_what_nothing_judges_is_refused(tiny, new_run, judging):
    with pytest.raises(SettingsError, match="evaluate_every=0"):
        tiny(train={**judging, "evaluate_every": 0})
    with pytest.raises(RunError, match="No text is held out"):
        train(tiny(train=judging, data={"valid_fraction": 0}), new_run("none"), preset="tiny")
