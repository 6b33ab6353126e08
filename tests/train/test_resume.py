"""What of a session is in a checkpoint, whatever its numbers are."""

from __future__ import annotations

import json

import pytest

from coterie.checkpoint import load_checkpoint
from coterie.train.precision import LossScale
from coterie.train.resume import restore_session, save_session
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
