"""What of a session is in a checkpoint, whatever its numbers are."""

from __future__ import annotations

import json

import pytest
import torch

from coterie.checkpoint import load_checkpoint
from coterie.train.precision import LossScale
from coterie.train.randomness import random_state, set_random_state
from coterie.train.resume import find_misfit, restore_session, save_session
from coterie.train.session import open_session


def no_constant(name: str) -> None:
    pytest.fail(f"JSON has no word for {name}")


def test_losses_that_are_not_finite_are_left_out_and_the_rest_comes_back(tiny, new_run):
    settings = tiny(train={"clip": {"kind": "adaptive"}, "sample_every": 0})
    session, other = (open_session(settings, new_run(name)) for name in ("one", "two"))
    session.stepper.loss_scale = LossScale(8.0, growth_interval=3)
    session.stepper.loss_scale.update(finite=True)
    session.stepper.clipper.observe(2.5)
    session.progress.advance(tokens=64, seconds=1.0, loss=float("nan"))
    session.progress.validation_loss = float("inf")
    path = save_session(session)
    json.loads((path / "state.json").read_text(), parse_constant=no_constant)

    other.stepper.loss_scale = LossScale(4.0, growth_interval=3)
    restore_session(other, load_checkpoint(path))
    assert other.progress.loss is None
    assert other.progress.validation_loss is None
    assert (other.progress.step, other.progress.tokens) == (1, 64)
    assert other.stepper.loss_scale.state() == {"scale": 8.0, "good_steps": 1}
    assert other.stepper.clipper.state() == [2.5]


def test_a_run_whose_rows_change_length_goes_on_bit_for_bit(tiny, new_run):
    share = {"kind": "linear", "first": 0, "last": 0.5, "end": 6}
    augment = [{"kind": "token_dropout", "share": share}]
    length = {"kind": "steps", "values": [4, 8, 16], "begins": [0, 2, 5]}
    data = {"curriculum": {"length": length, "multiple": 4}, "augment": augment}
    settings = tiny(data=data, train={"steps": 8, "sample_every": 0})

    def train_on(session, steps):
        with session.loader() as loader:
            batches = loader.iterate(session.progress.step)
            for _ in range(steps):
                step = session.progress.step
                batch, tokens = next(batches), session.stages.of(step).tokens
                assert batch.tokens.numel() == tokens
                loss = session.stepper(step, batch).loss
                session.progress.advance(tokens=tokens, seconds=1.0, loss=loss)

    whole, part, rest = (open_session(settings, new_run(name)) for name in ("a", "b", "c"))
    set_random_state(begun := random_state())
    train_on(whole, 7)
    set_random_state(begun)
    train_on(part, 4)
    path = save_session(part)
    assert find_misfit(path) is None
    restore_session(rest, load_checkpoint(path))
    train_on(rest, 3)
    assert rest.progress == whole.progress
    for one, other in zip(whole.decoder.parameters(), rest.decoder.parameters(), strict=True):
        assert torch.equal(one, other)
