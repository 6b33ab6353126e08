"""Epochs beside steps: what they come to, what goes by them, and how they resume."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from coterie.checkpoint import load_checkpoint
from coterie.data import BatchLoader, TokenArray
from coterie.data.cache import cached_store
from coterie.foundation.errors import Interrupted, RunError, SettingsError
from coterie.foundation.event_log import read_events
from coterie.foundation.layers import file_layer, load_settings
from coterie.foundation.runs import cache_root
from coterie.train import RunSettings, train
from coterie.train.events import CheckpointSaved, Evaluated, RunStarted, Sampled
from coterie.train.length import in_epochs
from coterie.train.plan import plan
from coterie.train.settings import TrainSettings

EPOCHS = {"epochs": 3, "batch_size": 64, "evaluate_every": None, "checkpoint_every": None}


def told(run, kind):
    return [event for event in read_events(run.events) if isinstance(event, kind)]


@pytest.mark.parametrize(
    ("said", "epochs"), [("2 epochs", 2), ("1 epoch", 1), ("0.5 epochs", 0.5), (7, 0), (None, 0)]
)
def test_how_often_may_be_said_in_epochs(said, epochs):
    settings = TrainSettings(evaluate_every=said, epoch_steps=40)
    assert in_epochs(settings.evaluate_every) == epochs
    assert settings.counts_epochs == bool(epochs)
    expected = {None: 250, 7: 7}.get(said, 40 * epochs)
    assert settings.spacing(settings.evaluate_every) == expected


@pytest.mark.parametrize("said", ["2", "epochs", "0 epochs", "-1 epochs", "3 steps", -1])
def test_what_is_neither_steps_nor_epochs_is_refused(said):
    with pytest.raises(ValidationError, match=r"number of steps|greater than or equal to 0"):
        TrainSettings(checkpoint_every=said)


def test_a_run_of_epochs_does_in_each_what_others_do_now_and_then(tiny, new_run):
    run = new_run("epochs")
    result = train(tiny(train=EPOCHS), run, preset="tiny")
    (started,) = told(run, RunStarted)
    each = started.epoch_steps
    assert (started.epochs, started.steps, result.steps) == (3, 3 * each, 3 * each)
    ends = [each, 2 * each, 3 * each]
    assert [event.step for event in told(run, Evaluated)] == ends
    assert [event.step for event in told(run, CheckpointSaved)] == ends
    assert [event.step for event in told(run, Sampled)] == [0, *ends]
    at = [started.epoch_at(step) for step in (0, each, each + 1, 3 * each)]
    assert at == ["epoch 1 of 3", "epoch 1 of 3", "epoch 2 of 3", "epoch 3 of 3"]
    kept = load_settings(RunSettings, [file_layer(run.config)]).settings.train
    assert (kept.epochs, kept.epoch_steps, kept.steps) == (3, each, 3 * each)


def test_patience_counts_epochs_where_a_run_does(tiny, new_run):
    run = new_run("patient")
    changes = EPOCHS | {"epochs": 9, "patience": 2, "improvement": 50.0}
    result = train(tiny(train=changes), run, preset="tiny")
    (started,) = told(run, RunStarted)
    assert result.steps == 3 * started.epoch_steps  # the first one is the best


def test_an_interrupted_epoch_ends_as_one_that_never_stopped(tiny, new_run):
    whole, broken, settings = new_run("whole"), new_run("broken"), tiny(train=EPOCHS)
    train(settings, whole, preset="tiny")
    each = told(whole, RunStarted)[0].epoch_steps
    seen = []

    def stop(event):
        seen.append(event)
        if event.kind == "step" and event.step == each + each // 2:
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, Interrupted)):
        train(settings, broken, preset="tiny", observers=[stop])
    own = load_settings(RunSettings, [file_layer(broken.config)]).settings
    result = train(own, broken, preset="tiny", resume=True, changed=())
    assert result.steps == 3 * each
    one, other = (load_checkpoint(run.checkpoints / result.checkpoint.name).model
                  for run in (whole, broken))  # fmt: skip
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_resumed_run_may_be_made_longer_in_epochs_and_not_shorter(tiny, new_run):
    run, settings = new_run("longer"), tiny(train=EPOCHS)
    each = train(settings, run, preset="tiny").steps // 3
    assert train(tiny(train=EPOCHS | {"epochs": 4}), run, preset="t", resume=True).steps == 4 * each
    with pytest.raises(RunError, match=f"{4 * each} steps already; {2 * each} is less"):
        train(tiny(train=EPOCHS | {"epochs": 2}), run, preset="t", resume=True)


def test_a_plan_says_no_steps_before_the_data_are_known(tiny, new_run):
    settings = tiny(train=EPOCHS)
    unknown = plan(settings, vocab_size=40)
    assert (unknown.steps, unknown.total_tokens, unknown.seconds) == (None, None, None)
    assert unknown.epochs == 3
    assert cached_store(settings.data, settings.tokenizer, cache_root()) is None
    known = settings.model_copy(update={"train": settings.train.with_epoch_of(5)})
    assert plan(known, vocab_size=40).steps == 15
    train(settings, new_run("made"), preset="tiny")
    assert cached_store(settings.data, settings.tokenizer, cache_root()) is not None


def test_a_stream_has_no_epochs_before_it_is_read(tiny):
    for told in ({"epochs": 2}, {"evaluate_every": "2 epochs"}):
        with pytest.raises(SettingsError, match="not counted before it is read"):
            tiny(data={"stream": {}, "split": "documents"}, train=told)


@pytest.mark.parametrize("count", [1, 99, 100, 101, 4900])
def test_an_epoch_reads_as_many_tokens_as_there_are(count):
    tokens = TokenArray([np.arange(count + 1, dtype=np.uint16) % 7])
    loader = BatchLoader(tokens, context=10, batch_size=10, seed=0)
    assert loader.epoch_steps == -(-len(tokens) // 100)
