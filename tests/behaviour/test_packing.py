"""Training on packed documents is training on the documents one by one, padded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from coterie.batch import IGNORE, TokenBatch
from coterie.data.packing import PADDING
from coterie.foundation.event_log import read_events
from coterie.foundation.runs import RunDirectory
from coterie.model import Decoder
from coterie.train import RunSettings, machine, train
from coterie.train.events import Evaluated, StepDone
from coterie.train.metrics import StepMetrics, total_counts
from coterie.train.objective import LanguageModel, Models
from coterie.train.session import Session, open_session

MOE = {
    "kind": "moe", "experts": [{"mlp": {"kind": "gated", "width": 8}, "count": 4}],
    "experts_per_token": 2, "router": {"z_loss": 0.1},
    "balance": {"kind": "auxiliary", "coefficient": 0.5},
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "dense": {"feedforward": {"kind": "dense"}, "position": "learned"},
    "moe": {"feedforward": MOE},
    "window": {
        "feedforward": MOE,
        "position": "rotary",
        "attention": {"kind": "grouped", "heads": 2, "window": 5},
    },
    "mtp": {"feedforward": MOE, "mtp": {"depth": 2}},
}
TEXTS = ["the king is dead", "no", "all the world is a stage, and more", "aye, my lord", "o"]


@pytest.fixture(autouse=True)
def known_machine(monkeypatch):
    monkeypatch.setattr(machine, "measure_matmul", lambda precision, seconds=0.0: 1e11)


def make_settings(folder: Path, packing: str, model: dict[str, Any], **changes: Any) -> RunSettings:
    source = folder / "texts.jsonl"
    lines = (json.dumps({"text": f"{text} {n % 7}"}) for n in range(8) for text in TEXTS)
    source.write_text("\n".join(lines), encoding="utf-8")
    base = {"layers": 2, "width": 16, "context": 16, "initial": {"std": 0.3},
            "attention": {"kind": "grouped", "heads": 2}}  # fmt: skip
    return RunSettings.model_validate({
        "data": {"source": str(source), "packing": packing, "valid_fraction": 0.2},
        "model": base | model,
        "train": {"batch_size": 4, "steps": 3, "evaluate_every": 0, "sample_every": 0,
                  "trackers": (), **changes},
    })  # fmt: skip


def pieces(batch: TokenBatch) -> Iterator[tuple[int, slice]]:
    """Yield where each document of each row lies."""
    assert batch.documents is not None
    for row, documents in enumerate(batch.documents.tolist()):
        start = 0
        for at in range(1, len(documents) + 1):
            if at == len(documents) or documents[at] != documents[start]:
                if documents[start] != PADDING:
                    yield row, slice(start, at)
                start = at


def unpacked(batch: TokenBatch) -> TokenBatch:
    """Return the documents of a batch, one a row, padded on the right."""
    found, (width, filler) = list(pieces(batch)), (batch.tokens.shape[1], torch.tensor)

    def rows(values: Tensor, padding: float) -> Tensor:
        taken = filler([padding], dtype=values.dtype).expand(len(found), width).clone()
        for number, (row, part) in enumerate(found):
            taken[number, : part.stop - part.start] = values[row, part]
        return taken

    weights = None if batch.weights is None else rows(batch.weights, 0.0)
    return TokenBatch(rows(batch.tokens, 0), rows(batch.targets, IGNORE), weights)


def take(decoder: Decoder, batch: TokenBatch, cut: int) -> tuple[StepMetrics, dict[str, Tensor]]:
    """Return metrics and gradients of a batch that is cut into micro-batches."""
    objective, metrics = LanguageModel().build(decoder.settings), StepMetrics()
    counts = total_counts(objective.counts(piece) for piece in batch.split(cut))
    decoder.zero_grad()
    for piece in batch.split(cut):
        metrics.add(objective(Models(decoder), piece), counts).backward()
    return metrics, {n: p.grad for n, p in decoder.named_parameters() if p.grad is not None}


def assert_equal(decoder: Decoder, batch: TokenBatch, cut: int = 1) -> None:
    """The packed batch gives the loss, every term and every gradient of the unpacked one."""
    found, gradients = take(decoder, batch, cut)
    expected, expected_gradients = take(decoder, unpacked(batch), 1)
    exact = {"rtol": 0, "atol": 1e-10}
    torch.testing.assert_close(found.loss, expected.loss, **exact)
    assert set(found.auxiliary) == set(expected.auxiliary)
    for name, term in expected.auxiliary.items():
        # The router and what it adds to the loss are float32 by design.
        torch.testing.assert_close(found.auxiliary[name], term, rtol=0, atol=1e-6)
    for layer, load in expected.loads.items():
        assert torch.equal(found.loads[layer], load)
    assert set(gradients) == set(expected_gradients)
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(gradients[name], gradient, **exact)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_packed_rows_give_loss_and_gradients_of_the_documents_apart(name, weighted, tmp_path):
    settings = make_settings(tmp_path, "whole", MODELS[name]).model
    settings = settings.model_copy(update={"vocab_size": 23})
    generator = torch.Generator().manual_seed(4)
    decoder = settings.build(generator).double().train()
    lengths = [[7, 1, 6, 2], [16], [3, 9, 4], [5, 8, 3]]  # the third row's last part is padding
    documents = torch.tensor([
        [number + 4 * row for number, length in enumerate(each) for _ in range(length)]
        for row, each in enumerate(lengths)
    ])  # fmt: skip
    documents[2, 12:] = PADDING
    tokens = torch.randint(23, (4, 17), generator=generator)
    targets = tokens[:, 1:].clone()
    targets[:, :-1][documents[:, 1:] != documents[:, :-1]] = IGNORE
    targets[documents == PADDING] = IGNORE
    weights = torch.rand(4, 16, generator=generator).double() if weighted else None
    assert_equal(decoder, TokenBatch(tokens[:, :-1], targets, weights, documents))


@pytest.fixture
def open_tiny(tmp_path):
    def make(packing: str, **changes: Any) -> tuple[RunSettings, Session]:
        settings = make_settings(tmp_path, packing, MODELS["mtp"], **changes)
        return settings, open_session(settings, RunDirectory.create(tmp_path, f"{packing}-opened"))

    return make


@pytest.mark.parametrize("packing", ["whole", "isolated"])
def test_batches_of_a_packing_train_as_their_documents_apart(packing, open_tiny, tmp_path):
    settings, session = open_tiny(packing)
    batch = session.loader().batch(0)
    assert len(list(pieces(batch))) > len(batch.tokens), "several documents share a row"
    run = RunDirectory.create(tmp_path, packing)
    train(settings, run, preset="tiny")
    events = list(read_events(run.events))
    steps = [event for event in events if isinstance(event, StepDone)]
    expected, _ = take(session.decoder, unpacked(batch), 1)
    assert steps[0].loss == pytest.approx(float(expected.loss), rel=1e-5)
    assert steps[0].auxiliary["mtp"] == pytest.approx(float(expected.auxiliary["mtp"]), rel=1e-5)
    assert len(steps) == 3
    assert [event for event in events if isinstance(event, Evaluated)]
    assert_equal(session.decoder.double(), batch)
