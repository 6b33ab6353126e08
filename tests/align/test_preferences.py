# pyright: basic, reportOptionalMemberAccess=false, reportOptionalSubscript=false
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalOperand=false
"""Losses and gradients against formulas written by hand; references once; metrics by name."""

from __future__ import annotations

import math

import pytest
import torch

from coterie.align.methods import method_of
from coterie.align.preferences import REFERENCE, Dpo, Kto, text_sums
from coterie.api.alignment import aligned
from coterie.batch import IGNORE
from coterie.checkpoint import load_model
from coterie.foundation.errors import DataError
from coterie.foundation.events import Notice
from coterie.foundation.layers import Layer
from coterie.foundation.runs import RunDirectory
from coterie.train import train
from coterie.train.events import Evaluated, StepDone
from coterie.train.objective import Models
from coterie.train.proof import prove_resume

PAIRS = [
    {"prompt": f"{n} times {n}", "chosen": f"is {n * n}", "rejected": f"said the king {n}"}
    for n in range(12)
]
MARKED = [
    {
        "prompt": f"{n} times {n}",
        "completion": f"is {n * n}" if n % 2 else "king",
        "label": n % 2 == 1,
    }
    for n in range(12)
]
SHORT = {
    "steps": 4, "epochs": None, "batch_size": 2, "evaluate_every": 2, "sample_every": 0,
    "checkpoint_every": 2, "schedule": {"kind": "constant", "warmup": 0},
    "optimizer": {"kind": "adamw", "learning_rate": 1e-3},
}  # fmt: skip


def settings_of(kind, base, path, align=None, **train_settings):
    layers = [Layer("test", {"train": SHORT | train_settings, "align": align or {}})]
    return aligned(kind, base, {"data": str(path)}, layers)


def tuned(settings, run, resume=False):
    events = []
    method = method_of(settings, run)
    train(settings, run, preset="x", observers=[events.append], resume=resume, method=method)
    return events


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("smooth", [0.0, 0.2])
def test_dpo_and_its_gradient_are_the_formulas(smooth):
    chosen = torch.tensor([0.3, -1.2, 4.0], dtype=torch.float64, requires_grad=True)
    rejected = torch.tensor([0.1, 0.9, -2.0], dtype=torch.float64, requires_grad=True)
    beta, ones = 0.3, torch.ones(3)
    settings = Dpo(base="x", beta=beta, label_smoothing=smooth)
    losses = settings.losses(chosen, rejected, (ones, ones))
    losses.sum().backward()
    losses, own = losses.tolist(), (chosen.tolist(), rejected.tolist())
    for number in range(3):
        h = beta * (own[0][number] - own[1][number])
        by_hand = -(1 - smooth) * math.log(sigmoid(h)) - smooth * math.log(sigmoid(-h))
        slope = beta * (sigmoid(h) - (1 - smooth))
        assert losses[number] == pytest.approx(by_hand, rel=1e-12)
        assert float(chosen.grad[number]) == pytest.approx(slope, rel=1e-12)
        assert float(rejected.grad[number]) == pytest.approx(-slope, rel=1e-12)


def test_ipo_and_its_gradient_are_the_formulas():
    chosen = torch.tensor([3.0], dtype=torch.float64, requires_grad=True)
    rejected = torch.tensor([-1.0], dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([6.0]), torch.tensor([4.0])
    loss = Dpo(base="x", beta=0.25, loss="ipo").losses(chosen, rejected, lengths)
    loss.sum().backward()
    apart = 3 / 6 + 1 / 4 - 2.0
    assert loss.tolist() == pytest.approx([apart**2], rel=1e-12)
    assert float(chosen.grad) == pytest.approx(2 * apart / 6, rel=1e-12)
    assert float(rejected.grad) == pytest.approx(-2 * apart / 4, rel=1e-12)


def test_kto_and_its_gradient_are_the_formulas():
    ratios = torch.tensor([0.7, 0.7, -2.0], dtype=torch.float64, requires_grad=True)
    wanted = torch.tensor([True, False, False])
    settings = Kto(base="x", beta=0.5, desirable=1.5, undesirable=0.5)
    losses = settings.losses(ratios, wanted, torch.tensor(0.2, dtype=torch.float64))
    losses.sum().backward()
    losses = losses.tolist()
    for number, ratio in enumerate([0.7, 0.7, -2.0]):
        sign, weight = (1, 1.5) if number == 0 else (-1, 0.5)
        s = sigmoid(sign * 0.5 * (ratio - 0.2))
        assert losses[number] == pytest.approx(weight * (1 - s), rel=1e-12)
        slope = -weight * sign * 0.5 * s * (1 - s)
        assert float(ratios.grad[number]) == pytest.approx(slope, rel=1e-12)


def test_sums_are_of_each_text():
    values = torch.arange(12.0).reshape(2, 6)
    documents = torch.tensor([[0, 0, 1, 2, 2, 3], [0, 1, 1, -1, -1, -1]])
    first, second = text_sums(values, documents)
    assert first.tolist() == [[1, 7, 0], [6, 0, 0]]
    assert second.tolist() == [[2, 5, 0], [15, 0, 0]]


def prepared(kind, base, path, **align):
    settings = settings_of(kind, base, path, {"valid_fraction": 0.0, **align})
    method = method_of(settings, None)
    settings, data = method.prepare(settings, lambda said: None)
    decoder = settings.model.build().double()
    method.begin(decoder, data, lambda said: None)
    return settings, method, data, decoder


@pytest.mark.parametrize("likelihood", [0.0, 0.5])
def test_the_loss_of_a_batch_is_that_of_its_texts_read_alone(base, rows_of, likelihood):
    rows = rows_of(PAIRS)
    settings, method, data, decoder = prepared("dpo", base, rows, likelihood=likelihood)
    with torch.no_grad():
        decoder.head.weight.mul_(1.5)  # away from the reference
    batch = data.train.in_order(range(data.train.count))
    batch = type(batch)(**{**vars(batch), "reference": batch.reference.double()})
    objective = method.objective(settings)
    terms = {t.name: t for t in objective(Models(decoder), batch).terms}
    counts = objective.counts(batch)
    assert int(counts["pairs"]) == 12

    def alone(row, document):
        at = batch.documents[row] == document
        tokens, targets = batch.tokens[row][None, at], batch.targets[row][None, at]
        own = -decoder(tokens, targets).losses.sum().item()
        per_token = own / int((targets >= 0).sum())
        return own - batch.reference[row][at].sum().item(), per_token

    losses = []
    for row in range(len(batch.tokens)):
        for pair in range(int(batch.documents[row].max()) // 2 + 1):
            (chosen, per_token), (rejected, _) = alone(row, 2 * pair), alone(row, 2 * pair + 1)
            h = 0.1 * (chosen - rejected)
            losses.append(-math.log(sigmoid(h)) - likelihood * per_token)
    mean = (terms["loss"].total / counts["pairs"]).item()
    assert mean == pytest.approx(sum(losses) / 12, rel=1e-9)
    assert mean != pytest.approx(math.log(2), abs=1e-3)
    assert not any(t.total.requires_grad for name, t in terms.items() if "/" in name)

    # The prompts and the padding have no gradient of their own.
    pieces = [objective(Models(decoder), piece) for piece in batch.split(len(batch.tokens))]
    summed = sum(next(t.total for t in p.terms if t.name == "loss").item() for p in pieces)
    assert summed == pytest.approx(terms["loss"].total.item(), rel=1e-9)


@pytest.mark.parametrize(("kind", "rows"), [("dpo", PAIRS), ("kto", MARKED)])
def test_preferences_are_learnt_and_resumed(base, rows_of, tmp_path, kind, rows):
    settings = settings_of(kind, base, rows_of(rows))
    whole = RunDirectory.create(tmp_path / "r", "whole")
    events = tuned(settings, whole)
    steps = [e for e in events if isinstance(e, StepDone)]
    if kind == "dpo":
        # Before a step the policy is the reference, but for rounding.
        assert steps[0].loss == pytest.approx(math.log(2), abs=1e-5)
        assert steps[0].numbers()["rewards/margins"] == pytest.approx(0, abs=1e-5)
        assert steps[-1].numbers()["rewards/margins"] > 0
        assert {"rewards/chosen", "rewards/accuracies", "logps/rejected"} <= set(steps[0].numbers())
    else:
        assert steps[0].loss == pytest.approx(0.5, abs=1e-4)
    held = [e.loss for e in events if isinstance(e, Evaluated)]
    assert held[-1] < held[0]

    parts = RunDirectory.create(tmp_path / "r", "parts")
    half = settings.model_copy(update={"train": settings.train.model_copy(update={"steps": 2})})
    first = tuned(half, parts)
    second = tuned(settings, parts, resume=True)
    assert [e.loss for e in first + second if isinstance(e, StepDone)] == [e.loss for e in steps]
    one, other = load_model(whole).decoder.state_dict(), load_model(parts).decoder.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    said = [e.message for e in second if isinstance(e, Notice)]
    assert (parts.path / REFERENCE).is_file()
    assert not any("what the reference says" in each for each in said)
    if kind == "dpo":
        assert prove_resume(whole, 2, methods=method_of).equal


def test_kto_takes_marks_and_mismatched_answers(base, rows_of):
    settings, method, data, _ = prepared("kto", base, rows_of(MARKED))
    batch = data.train.in_order(range(data.train.count))
    counts = method.objective(settings).counts(batch)
    assert (int(counts["pairs"]), int(counts["wanted"]), int(counts["unwanted"])) == (12, 6, 6)
    texts = []
    for row in range(len(batch.tokens)):
        for document in range(int(batch.documents[row].max()) + 1):
            at = batch.documents[row] == document
            texts.append(base.tokenizer.decode(batch.tokens[row][at].tolist()))
            assert (batch.targets[row][at] != IGNORE).any()
    assert "USER:\n3 times 3\n\nASSISTANT:\nis 9" in texts
    assert "USER:\n3 times 3\n\nASSISTANT:\nking" in texts  # the next row's


@pytest.mark.parametrize(
    ("kind", "row", "said"),
    [
        ("dpo", {"prompt": "a", "chosen": "b"}, r":1: no field “rejected”"),
        ("dpo", {"chosen": "b", "rejected": "c"}, r":1: no field “prompt”"),
        ("kto", {"prompt": "a", "completion": "b", "label": 1}, r":1: no field “label” that is tr"),
    ],
)
def test_bad_rows_are_named(base, rows_of, kind, row, said):
    settings = settings_of(kind, base, rows_of([row]))
    with pytest.raises(DataError, match=said):
        method_of(settings, None).prepare(settings, lambda told: None)
