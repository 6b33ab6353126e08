"""An objective from outside the package, in one file; and one that reads a second model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch

from coterie.batch import TokenBatch
from coterie.foundation.event_log import read_events
from coterie.model import DecoderSettings, Output
from coterie.train import train
from coterie.train.clip import NoClip
from coterie.train.events import StepDone
from coterie.train.objective import Models, Term, Terms
from coterie.train.optimizer import AdamW, RoleParameter
from coterie.train.precision import resolve_precision
from coterie.train.settings import TrainSettings
from coterie.train.step import Stepper

FOCAL = '''
"""Focal loss (Lin et al. 2017, arXiv:1708.02002): easy tokens count less."""

from coterie.foundation.settings import Settings
from coterie.train.objective import Term, Terms


class Focal(Settings):
    kind: str = "my_lab_focal:Focal"
    gamma: float = 2.0

    def build(self, model):
        return FocalObjective(self.gamma)


class FocalObjective:
    def __init__(self, gamma):
        self.gamma = gamma

    def counts(self, batch):
        return {"targets": batch.total_weight()}

    def __call__(self, models, batch):
        output = models.decoder(batch.tokens, batch.targets)
        ease = (-output.losses.detach()).exp()
        losses = (1 - ease) ** self.gamma * output.losses
        return Terms(
            (Term("loss", losses.sum(), "targets"), Term("ease", ease.sum(), "targets", 0.0)),
            output.router_stats,
        )
'''


def test_an_objective_from_outside_trains(tiny, new_run, tmp_path, monkeypatch):
    (tmp_path / "my_lab_focal.py").write_text(FOCAL, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    losses = []
    for objective in (
        {"kind": "my_lab_focal:Focal", "gamma": 0.0},
        "my_lab_focal:Focal",
        "language_model",
    ):
        run = new_run(f"run-{len(losses)}")
        changes = {"objective": objective, "steps": 3, "sample_every": 0}
        train(tiny(train=changes), run, preset="tiny")
        steps = [event for event in read_events(run.events) if isinstance(event, StepDone)]
        losses.append([step.loss for step in steps])
        assert ("ease" in steps[0].auxiliary) == (objective != "language_model")
    plain, focal, expected = losses
    assert plain == expected, "without focus it is the language model's, bit for bit"
    assert len(focal) == 3
    assert 0 < focal[0] < expected[0]


@dataclass(frozen=True)
class Pair(Models):
    """A decoder in training and one to stay near."""

    reference: Callable[..., Output]


class NearReference:
    """KL(reference ‖ decoder), mean over all positions."""

    def counts(self, batch: TokenBatch) -> dict[str, torch.Tensor]:
        return {"positions": torch.tensor(batch.tokens.numel())}

    def __call__(self, models: Models, batch: TokenBatch) -> Terms:
        assert isinstance(models, Pair)
        with torch.no_grad():
            wanted = models.reference(batch.tokens).logits.log_softmax(-1)
        found = models.decoder(batch.tokens).logits.log_softmax(-1)
        distance = torch.nn.functional.kl_div(found, wanted, log_target=True, reduction="sum")
        return Terms((Term("loss", distance, "positions"),))


def test_an_objective_may_read_a_second_model_that_stays_as_it_is():
    settings = DecoderSettings.model_validate({
        "layers": 1, "width": 8, "context": 8, "vocab_size": 11, "initial": {"std": 0.4},
        "attention": {"kind": "grouped", "heads": 2}, "feedforward": {"kind": "dense"},
    })  # fmt: skip
    torch.manual_seed(0)
    decoder, reference = settings.build(), settings.build()
    before = copy.deepcopy(reference.state_dict())
    tokens = torch.randint(11, (4, 8))
    batch = TokenBatch(tokens, tokens)
    optimizer = AdamW(learning_rate=0.05).build(
        [RoleParameter(name, "matrix", each) for name, each in decoder.named_parameters()]
    )
    stepper = Stepper(
        decoder, Pair(decoder, reference), NearReference(), optimizer, NoClip().build(),
        resolve_precision("float32", torch.device("cpu")),
        TrainSettings(batch_size=4, gradient_accumulation=2, schedule={"kind": "constant"}),
    )  # fmt: skip
    losses = [float(stepper(step, batch).metrics.loss) for step in range(20)]
    assert losses[-1] < losses[0] / 2
    assert all(torch.equal(before[name], each) for name, each in reference.state_dict().items())
    assert all(parameter.grad is None for parameter in reference.parameters())
