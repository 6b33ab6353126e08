"""Validation loss is the mean over every token of the split, whatever the batches."""

from __future__ import annotations

import pytest
import torch

from coterie.data import TokenArray
from coterie.foundation.errors import DataError
from coterie.foundation.events import Evaluated, Notice, Sampled, read_events
from coterie.model import selection_biases
from coterie.train import train
from coterie.train.evaluation import evaluate
from coterie.train.session import open_session


@pytest.fixture
def session(tiny, new_run):
    session = open_session(tiny(model={"dropout": 0.5}), new_run("evaluated"))
    session.stepper(0, session.loader().batch(0))
    return session


def test_the_loss_is_the_mean_over_all_tokens_window_by_window(session):
    tokens = session.store.tokens("valid")
    row = torch.tensor(tokens[:].astype("int64"))
    session.decoder.eval()
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(row) - 1, 16):
            inputs, targets = row[start : start + 16], row[start + 1 : start + 17]
            logits = session.decoder(inputs[None, : len(targets)]).logits[0]
            total += float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
    session.decoder.train()
    for batch_size in (1, 3, 1000):
        found = evaluate(
            session.decoder, tokens, batch_size=batch_size, precision=session.precision
        )
        assert found.tokens == len(tokens) - 1
        assert found.loss == pytest.approx(total / found.tokens, rel=1e-5)


def test_mode_balance_and_chance_are_as_before(session):
    state, biases = torch.get_rng_state(), selection_biases(session.decoder)
    assert any(bias.any() for bias in biases.values())
    evaluate(
        session.decoder, session.store.tokens("valid"), batch_size=4, precision=session.precision
    )
    assert session.decoder.training
    assert torch.equal(torch.get_rng_state(), state)
    for layer, bias in selection_biases(session.decoder).items():
        assert torch.equal(bias, biases[layer])


def test_a_run_that_holds_nothing_out_says_so_and_is_not_evaluated(tiny, new_run):
    run = new_run("all")
    result = train(tiny(data={"valid_fraction": 0}), run, preset="tiny")
    assert result.validation_loss is None
    events = read_events(run.events)
    assert not [event for event in events if isinstance(event, Evaluated)]
    assert [event for event in events if isinstance(event, Notice) and event.level == "warning"]


def test_an_empty_split_is_a_clear_error(session):
    with pytest.raises(DataError, match="no token to predict"):
        evaluate(session.decoder, TokenArray([]), batch_size=1, precision=session.precision)


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
