"""A method brings its own weights, batches with further tensors, and metrics."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from coterie.batch import TokenBatch
from coterie.foundation.events import Notice
from coterie.train import train
from coterie.train.events import StepDone
from coterie.train.objective import Term, Terms
from coterie.train.pretraining import Pretraining


@dataclass(frozen=True, eq=False)
class Scaled(TokenBatch):
    scales: Tensor | None = None  # [B]


class Objective:
    def counts(self, batch):
        return {"rows": torch.tensor(len(batch.tokens))}

    def __call__(self, models, batch):
        assert isinstance(batch, Scaled)
        losses = models.decoder(batch.tokens, batch.targets).losses.mean(1) * batch.scales
        total = losses.sum()
        return Terms(
            (Term("loss", total, "rows"), Term("rewards/scale", batch.scales.sum(), "rows"))
        )


class Batches(contextlib.AbstractContextManager):
    """Batches made of the weights as they are at the step."""

    def __init__(self, session):
        self.session = session

    def __exit__(self, *error):
        pass

    def iterate(self, start=0, ready=1):
        step = start
        while True:
            assert self.session.progress.step == step
            written = float(self.session.decoder.norm.weight.detach().sum())
            self.session.publish(Notice(level="info", message=f"weights {written!r}"))
            tokens = torch.arange(8 * 4).reshape(4, 8) % 7 + step
            yield Scaled(tokens, tokens.roll(-1, 1), scales=torch.arange(4.0))
            step += 1


class Ours(Pretraining):
    def begin(self, decoder, data, tell):
        with torch.no_grad():
            for parameter in decoder.parameters():
                parameter.fill_(0.25)

    def objective(self, settings):
        return Objective()

    def example(self, settings, data, device):
        tokens = torch.zeros(4, 8, dtype=torch.int64)
        return Scaled(tokens, tokens, scales=torch.ones(4))

    def loader(self, session):
        return Batches(session)

    def describe(self, session, loader, tell):
        pass


@pytest.fixture
def short(tiny):
    train = {"steps": 4, "evaluate_every": 0, "sample_every": 0, "gradient_accumulation": 2}
    return tiny(train=train | {"schedule": {"kind": "constant", "warmup": 0}})


def trained(settings, run, resume=False):
    events = []
    train(settings, run, preset="none", observers=[events.append], resume=resume, method=Ours())
    weights = [e.message for e in events if isinstance(e, Notice) and e.message[:8] == "weights "]
    return weights, [event for event in events if isinstance(event, StepDone)]


def test_a_method_brings_weights_batches_and_metrics_and_resumes(short, new_run):
    weights, steps = trained(short, new_run("whole"))
    width = short.model.width
    assert weights[0] == f"weights {0.25 * width!r}"
    assert len(set(weights)) == 4  # each batch is made with the weights of its own step
    # In two micro-batches of rows that are scaled by 0, 1 and by 2, 3.
    assert [step.auxiliary["rewards/scale"] for step in steps] == [1.5] * 4
    assert steps[0].numbers()["rewards/scale"] == 1.5

    run = new_run("parts")
    half = short.model_copy(update={"train": short.train.model_copy(update={"steps": 2})})
    first, second = trained(half, run), trained(short, run, resume=True)
    assert first[0] + second[0] == weights
    assert [s.loss for s in first[1] + second[1]] == [s.loss for s in steps]
