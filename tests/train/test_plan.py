"""A plan says beforehand what a run turns out to be."""

from __future__ import annotations

import json

import pytest

from coterie.foundation.errors import SettingsError
from coterie.train import TrainSettings
from coterie.train.plan import plan
from coterie.train.session import open_session


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adafactor"])
def test_counts_and_memory_are_those_of_the_built_model(tiny, new_run, optimizer):
    settings = tiny(train={"optimizer": optimizer, "gradient_accumulation": 2})
    session = open_session(settings, new_run("planned"))
    planned = plan(settings, vocab_size=session.tokenizer.vocab_size)
    parameters = sum(parameter.numel() for parameter in session.decoder.parameters())
    assert planned.parameters == parameters
    assert planned.active_parameters < parameters
    assert planned.memory["weights"] >= 4 * parameters  # and the balances' few numbers
    assert planned.memory["weights"] < 4.01 * parameters
    session.stepper(0, session.loader().batch(0))
    state = session.stepper.optimizer.state()
    held = sum(tensor.numel() * 4 for name, tensor in state.items() if not name.endswith(".step"))
    assert planned.memory["optimizer"] >= held  # and what a step of it needs besides
    assert planned.memory_bytes == sum(planned.memory.values())


def test_operations_are_six_per_active_parameter_and_attention(tiny):
    short, long = (plan(tiny(model={"context": context}), vocab_size=30) for context in (16, 32))
    assert short.tokens_per_step == 4 * 16
    assert short.total_tokens == 6 * 4 * 16
    products = 6 * short.active_parameters
    # Norms are active parameters that no matrix product multiplies: a little less without them.
    assert 0.9 * products < short.flops_per_step / short.tokens_per_step < 1.5 * products
    # Twice the context: attention's share per token grows, the rest stays.
    assert long.flops_per_step > 2 * short.flops_per_step


def test_the_time_follows_from_the_measured_ceiling(tiny):
    planned = plan(tiny(), vocab_size=30)
    assert planned.peak_flops == 1e11
    assert planned.seconds == pytest.approx(planned.flops_per_step * 6 / (1e11 * 0.35))
    assert (planned.device, planned.precision) == ("cpu", "float32")
    assert json.loads(json.dumps(planned.summary()))["vocab_size"] == 30


def test_muon_counts_its_own_products_and_recomputation_saves_activations(tiny):
    adamw, muon = (plan(tiny(train={"optimizer": o}), vocab_size=30) for o in ("adamw", "muon"))
    assert muon.flops_per_step > adamw.flops_per_step
    deep = {"layers": 12}
    kept, again = (
        plan(tiny(model=deep, train={"activation_checkpointing": recompute}), vocab_size=30)
        for recompute in (False, True)
    )
    assert again.memory["attention"] < kept.memory["attention"] / 3
    assert again.memory["experts"] < kept.memory["experts"] / 3


def test_a_vocabulary_smaller_than_the_tokenizers_is_refused(tiny):
    with pytest.raises(SettingsError, match="smaller than the tokenizer's 30"):
        plan(tiny(model={"vocab_size": 29}), vocab_size=30)
    assert plan(tiny(model={"vocab_size": 64}), vocab_size=30).vocab_size == 64


def test_a_batch_that_cannot_be_cut_evenly_is_refused():
    with pytest.raises(ValueError, match="=10 cannot be cut into gradient_accumulation=4"):
        TrainSettings(batch_size=10, gradient_accumulation=4)
