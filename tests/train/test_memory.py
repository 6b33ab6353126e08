"""What a run needs is estimated before anything is made."""

import pytest
import torch

from coterie.checkpoint.tensors import model_tensors
from coterie.foundation.errors import SettingsError
from coterie.foundation.layers import load_settings, overrides_layer
from coterie.presets import preset_layers
from coterie.train import memory
from coterie.train.average import WeightAverage
from coterie.train.precision import resolve_device, resolve_precision
from coterie.train.roles import role_parameters
from coterie.train.settings import RunSettings


def parts(words):
    layers = [
        *preset_layers("quickstart", "tiny"),
        overrides_layer(["model.vocab_size=80", *words]),
    ]
    run = load_settings(RunSettings, layers).settings
    precision = resolve_precision("float32", resolve_device("cpu"))
    return (
        run,
        precision,
        memory.estimate_memory(run, precision),
    )


def test_counted_ngrams_are_part_of_the_estimate(monkeypatch):
    *_, without = parts(["model.ngram=null"])
    run, precision, with_them = parts(["model.ngram.entries=1000000"])
    buffers = dict(run.model.build().named_buffers())
    held = sum(buffers[f"ngram.{name}"].nbytes for name in ("grams", "counts"))
    assert with_them["weights"] - without["weights"] == held
    monkeypatch.setattr(memory, "memory_of", lambda device: sum(without.values()))
    with pytest.raises(SettingsError, match="would need about"):
        memory.require_memory(run, precision)


def test_what_is_copied_to_be_saved_in_the_background_counts():
    words = ["train.ema=0.9"]
    _, _, plain = parts(words)
    run, _, found = parts([*words, "train.save_in_background=true"])
    decoder = run.model.build()
    trained = role_parameters(decoder)
    for each in trained:
        each.tensor.grad = torch.zeros_like(each.tensor)
    optimizer = run.train.optimizer.build(trained)
    optimizer.step(0, 1.0)
    average = WeightAverage(trained, 0.9).trained()
    copied = {**model_tensors(decoder), **optimizer.state(), **average}
    assert found.pop("saving") == pytest.approx(sum(t.nbytes for t in copied.values()), rel=0.01)
    assert found == plain


def test_a_run_that_surely_fits_is_not_counted(monkeypatch):
    run, precision, held = parts([])
    monkeypatch.setattr(memory, "step_memory", lambda *given: pytest.fail("was counted"))
    assert memory._at_most(run, precision) > sum(held.values())
    monkeypatch.setattr(memory, "memory_of", lambda device: memory._at_most(run, precision))
    memory.require_memory(run, precision)
