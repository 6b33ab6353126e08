"""Samples and evaluations of a run, as its record tells them."""

from __future__ import annotations

import pytest

from coterie.foundation.event_log import read_events
from coterie.foundation.events import Notice
from coterie.train import train
from coterie.train.events import Evaluated, Sampled


def test_a_run_that_holds_nothing_out_says_so_and_is_not_evaluated(tiny, new_run):
    run = new_run("all")
    result = train(tiny(data={"valid_fraction": 0}), run, preset="tiny")
    assert result.validation_loss is None
    events = read_events(run.events)
    assert not [event for event in events if isinstance(event, Evaluated)]
    assert [event for event in events if isinstance(event, Notice) and event.level == "warning"]


def test_characters_and_samples_are_told(tiny, new_run):
    run = new_run("told")
    settings = tiny(train={"prompts": ["3 times", "the king"]}, sample={"temperature": 0.0})
    train(settings, run, preset="tiny")
    events = read_events(run.events)
    evaluated = [event for event in events if isinstance(event, Evaluated)][-1]
    assert evaluated.characters == evaluated.tokens  # one token is one character here
    assert evaluated.nats_per_character == pytest.approx(evaluated.loss)
    samples = [event for event in events if isinstance(event, Sampled) and event.step == 6]
    assert [sample.prompt for sample in samples] == ["3 times", "the king"]
    written = (run.samples / "step-00000006.txt").read_text()
    assert all(sample.prompt + sample.text in written for sample in samples)
