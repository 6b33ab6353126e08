"""One batch, however it is computed: the gradients of every preset, at scale tiny, in float32.

What goes by chance or by who shares a micro-batch is left out, for it is another computation in
each cut: dropout and router noise are drawn for every micro-batch, a capacity drops what one has
too many of, and a balance term of scope `micro_batch` is that of each by definition, that of
`global` one of the load so far. Balance is on, by `sequence` where it is a term of the loss.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from typing import Any

import pytest
import torch

from coterie.batch import IGNORE, TokenBatch
from coterie.foundation.layers import load_settings
from coterie.model import DecoderSettings, loss, routed_layers
from coterie.presets import preset_layers, preset_names
from coterie.train import RunSettings
from coterie.train.clip import NoClip
from coterie.train.objective import LanguageModel, Models
from coterie.train.precision import resolve_precision
from coterie.train.settings import TrainSettings
from coterie.train.step import Stepper

VOCABULARY, ROWS, LENGTH = 97, 8, 24
CALM: dict[str, Any] = {"dropout": 0.0, "capacity_factor": None, "noise": {"kind": "none"},
                        "scope": "sequence"}  # fmt: skip


def calm(values: Any) -> Any:
    """Return a model's settings without what differs from cut to cut; the balance stays."""
    if isinstance(values, list | tuple):
        return [calm(each) for each in values]
    if not isinstance(values, dict):
        return values
    found = {name: calm(each) for name, each in values.items()}
    for name, value in CALM.items():
        if name in found and not (name == "dropout" and isinstance(found[name], dict)):
            found[name] = value
    return found | ({"rate": 0.0} if values.get("kind") in ("independent", "structured") else {})


def number_tags(model: dict[str, Any]) -> None:
    """Give the tags of structure embeddings ids, as a run's tokenizer does."""
    for each in model["additive"]:
        for number, kind in enumerate(each["kinds"].values()):
            kind |= {"opening_id": 2 * number + 1, "closing_id": 2 * number + 2}


@functools.cache
def decoder_of(name: str):
    model = load_settings(RunSettings, preset_layers(name, "tiny")).settings.model
    values = calm(model.model_dump(mode="json")) | {"vocab_size": VOCABULARY}
    number_tags(values)
    torch.manual_seed(3)
    decoder = DecoderSettings.model_validate(values).build().train()
    if decoder.ngram is not None:
        decoder.ngram.count([torch.arange(400) ** 2 % VOCABULARY])
    return decoder


def batch() -> TokenBatch:
    """Rows with 24, 3, 0, ... targets: never the same number in two pieces."""
    tokens = torch.randint(
        VOCABULARY, (ROWS, LENGTH + 1), generator=torch.Generator().manual_seed(1)
    )
    targets = tokens[:, 1:].clone()
    for row, valid in enumerate((24, 3, 0, 15, 8, 1, 21, 2)):
        targets[row, valid:] = IGNORE
    return TokenBatch(tokens[:, :-1].contiguous(), targets)


class Keep:
    """An optimizer that keeps the gradients it was given."""

    learning_rate = 1.0

    def __init__(self, decoder):
        self.decoder, self.gradients = decoder, {}

    def step(self, step, multiplier):
        named = self.decoder.named_parameters()
        self.gradients = {name: p.grad.clone() for name, p in named if p.grad is not None}


def gradients(name: str, pieces: int = 1, forward=None):
    """Return the gradients, the loss and the loads of one step that moves nothing."""
    decoder = decoder_of(name)
    keep = Keep(decoder)
    settings = TrainSettings(batch_size=ROWS, gradient_accumulation=pieces)
    models = Models(decoder if forward is None else forward)
    stepper = Stepper(
        decoder, models, LanguageModel().build(decoder.settings), keep,
        NoClip().build(), resolve_precision("float32", torch.device("cpu")), settings,
    )  # fmt: skip
    biases = {key: value.clone() for key, value in decoder.named_buffers()}
    result = stepper(0, batch())
    for key, value in decoder.named_buffers():  # a balance bias has moved
        value.copy_(biases[key])
    return keep.gradients, result.loss, result.metrics.loads


def apart(one, other) -> float:
    """Return how far two sets of gradients are apart, as a share of their norm."""
    assert one.keys() == other.keys()
    difference = sum(float((one[key].double() - other[key].double()).square().sum()) for key in one)
    norm = sum(float(one[key].double().square().sum()) for key in one)
    return (difference / norm) ** 0.5


@functools.cache
def plain(name: str):
    return gradients(name)


def assert_equal(name: str, found) -> None:
    (whole, wanted, loads), (other, lost, others) = plain(name), found
    assert lost == pytest.approx(wanted, rel=1e-6)
    assert apart(whole, other) <= 1e-6
    assert all(torch.equal(loads[layer], others[layer]) for layer in loads)


@pytest.mark.parametrize("name", preset_names())
def test_a_batch_in_micro_batches_is_the_batch(name):
    for pieces in (2, 8):
        assert_equal(name, gradients(name, pieces))


@pytest.mark.parametrize("name", preset_names())
def test_recomputed_blocks_and_losses_in_slices_are_the_plain_ones(name, monkeypatch):
    whole = plain(name)
    with monkeypatch.context() as change:
        change.setattr(decoder_of(name), "activation_checkpointing", True)
        assert_equal(name, gradients(name))
    monkeypatch.setattr(loss, "_ON_CPU", VOCABULARY * 7)
    monkeypatch.setattr(loss, "_FEWEST", 7)  # rows of a slice
    sliced = gradients(name)
    assert apart(whole[0], sliced[0]) > 0  # for sums have another order
    assert_equal(name, sliced)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", preset_names())
def test_a_compiled_decoder_is_the_plain_one(name):
    """In a process of its own, for what checks shapes in tests cannot be traced."""
    child = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr[-3000:]


def test_every_preset_that_routes_is_held_with_its_balance():
    balances = {
        name: {type(part.balance).__name__ for part in routed_layers(decoder_of(name)).values()}
        for name in preset_names()
    }
    bias, auxiliary = {"BiasBalancePart"}, {"AuxiliaryBalancePart"}
    assert {name: kinds for name, kinds in balances.items() if kinds} == {
        "quickstart": bias, "sonnet": bias, "s15era": bias, "blues": auxiliary, "mymoe": auxiliary,
        "yinghub": auxiliary,
    }  # fmt: skip


if __name__ == "__main__":
    assert_equal(
        sys.argv[1], gradients(sys.argv[1], forward=torch.compile(decoder_of(sys.argv[1])))
    )
