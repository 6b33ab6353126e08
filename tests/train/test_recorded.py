"""Recorded steps: on a CPU a replay runs the passes again, at the fixed places of a graph."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from coterie.batch import TokenBatch
from coterie.foundation.runs import RunDirectory
from coterie.train.metrics import StepMetrics
from coterie.train.recorded import RecordedGradients
from coterie.train.session import open_session

BALANCES = {
    "bias": {"kind": "bias"},
    "adds up": {"kind": "auxiliary", "coefficient": 0.01, "scope": "global"},
}


def again(step):
    """Run a step as recording does, and repeat it by running it once more."""
    for _ in range(3):
        step()
    return step


def steps_of(settings, folder, name, record=None, numbers=range(4), told=None):
    """Take steps; return the results, and the session."""
    session = open_session(settings, RunDirectory.create(folder, name))
    if record is not None:
        session.stepper.tell = (told if told is not None else []).append
        session.stepper.record(record)
    loader = session.loader()
    return [session.stepper(number, loader.batch(number)) for number in numbers], session


@pytest.mark.parametrize("balance", BALANCES)
def test_recorded_steps_are_those_that_run_kernel_by_kernel(tiny, tmp_path, balance):
    settings = tiny(
        model={"dropout": 0.1, "feedforward": {"balance": BALANCES[balance]}},
        train={"gradient_accumulation": 2},
    )
    plain, one = steps_of(settings, tmp_path, "plain")
    recorded, other = steps_of(settings, tmp_path, "recorded", again)
    for each, same in zip(plain, recorded, strict=True):
        assert each.loss == same.loss
        assert each.gradient_norm == same.gradient_norm
        assert each.metrics.auxiliary.keys() == same.metrics.auxiliary.keys()
        for layer, load in each.metrics.loads.items():
            assert torch.equal(load, same.metrics.loads[layer])
    for name, tensor in one.decoder.state_dict().items():
        assert torch.equal(tensor, other.decoder.state_dict()[name]), name
    assert all(p.grad is None for p in other.decoder.parameters())


def test_what_a_step_told_does_not_lie_where_the_next_one_writes(tiny, tmp_path):
    (result,), session = steps_of(tiny(), tmp_path, "run", again, numbers=range(1))
    told, written = result.metrics, session.stepper.recorded._recording.results.metrics
    assert told.loss == written.loss
    assert told.loss.data_ptr() != written.loss.data_ptr()
    for layer, load in written.loads.items():
        assert told.loads[layer].data_ptr() != load.data_ptr()


def test_another_shape_is_recorded_anew(tiny, tmp_path):
    recorded = []

    def count(step):
        recorded.append(step)
        return again(step)

    _, session = steps_of(tiny(), tmp_path, "run", count)
    assert len(recorded) == 1
    short = session.loader().batch(4).part(4, 8)
    plain = session.stepper._accumulate(short, 1)
    session.stepper._forget()
    assert float(session.stepper(4, short).metrics.loss) == float(plain.loss)
    assert len(recorded) == 2


@dataclass(frozen=True, eq=False)
class Marked(TokenBatch):
    """What a method of alignment reads: tokens, and something of its own."""

    marks: torch.Tensor | None = None


def test_what_a_batch_holds_besides_tokens_is_read_at_every_step():
    seen = []

    def compute(batch):
        seen.append(int(batch.marks.sum()))
        weight.grad = batch.marks.float()
        return StepMetrics()

    weight, tokens = torch.nn.Parameter(torch.zeros(2)), torch.zeros(2, 3, dtype=torch.long)
    recorded = RecordedGradients([weight], compute, lambda: None, pytest.fail, again)
    for marks in (torch.tensor([1, 2]), torch.tensor([3, 4])):
        recorded(Marked(tokens, tokens, marks=marks))
    assert seen[-2:] == [3, 7]


def test_the_reason_told_is_what_broke_a_recording_off(tiny, tmp_path):
    def refuse(step):
        try:
            raise RuntimeError("nothing may wait for the device")
        finally:
            raise RuntimeError("failed due to a previous error")

    told = []
    steps_of(tiny(), tmp_path, "refused", refuse, range(1), told)
    assert "nothing may wait for the device" in told[0]


def test_steps_that_cannot_be_recorded_run_as_they_are_which_is_said_once(tiny, tmp_path):
    def refuse(step):
        step()
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    told = []
    settings = tiny(model={"dropout": 0.1})
    plain, _ = steps_of(settings, tmp_path, "plain")
    refused, _ = steps_of(settings, tmp_path, "refused", refuse, told=told)
    assert [each.loss for each in plain] == [each.loss for each in refused]
    assert len(told) == 1
    assert "operation not permitted when stream is capturing" in told[0]
    assert "more" not in told[0]


def test_the_loss_scale_of_a_recorded_step_is_that_of_now(tiny, tmp_path):
    """Gradients of a scale that was halved meanwhile are divided by what multiplied them."""
    train = {"precision": "float16", "optimizer": {"kind": "adamw", "learning_rate": 1e-9}}
    session = open_session(tiny(train=train), RunDirectory.create(tmp_path, "run"))
    session.stepper.record(again)
    batch, norms = session.loader().batch(0), []
    for scale in (2.0**10, 2.0**4):
        session.stepper.loss_scale.scale = scale
        norms.append(session.stepper(0, batch).gradient_norm)
    assert norms[0] == pytest.approx(norms[1], rel=0.02)


def test_a_recording_that_takes_more_memory_than_there_is_is_done_without(tiny, tmp_path):
    def too_much(step):
        step()
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")

    told, settings = [], tiny()
    plain, _ = steps_of(settings, tmp_path, "plain")
    without, session = steps_of(settings, tmp_path, "without", too_much, told=told)
    assert [each.loss for each in plain] == [each.loss for each in without]
    assert session.stepper.recorded is None
    assert session.stepper.pieces == settings.train.gradient_accumulation
    assert sum("Steps run kernel by kernel" in each for each in told) == 1
