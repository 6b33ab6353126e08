"""What a run needs is estimated before anything is made."""

import pytest

from coterie.foundation.errors import SettingsError
from coterie.foundation.layers import load_settings, overrides_layer
from coterie.presets import preset_layers
from coterie.train import memory
from coterie.train.precision import resolve_device, resolve_precision
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


def test_a_run_that_surely_fits_is_not_counted(monkeypatch):
    run, precision, held = parts([])
    monkeypatch.setattr(memory, "step_memory", lambda *given: pytest.fail("was counted"))
    assert memory._at_most(run, precision) > sum(held.values())
    monkeypatch.setattr(memory, "memory_of", lambda device: memory._at_most(run, precision))
    memory.require_memory(run, precision)
