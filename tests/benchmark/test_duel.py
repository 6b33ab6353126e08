"""Runs that meet on one set of weights: the same steps, no trace, and memory is asked for first."""

from __future__ import annotations

import pytest
import torch

from coterie.benchmark import duel
from coterie.benchmark.duel import Bench
from coterie.benchmark.tune import changed
from coterie.foundation.errors import SettingsError, UserError
from coterie.foundation.layers import Layer, load_settings
from coterie.presets import preset_layers
from coterie.train import RunSettings, memory


@pytest.fixture
def run(places) -> RunSettings:
    text = places / "april.txt"
    text.write_text("It was a bright cold day in April, and the clocks were striking.\n" * 40)
    own = {"data": {"source": str(text), "split": "tail"}, "train": {"device": "cpu"}}
    layers = [*preset_layers("quickstart", "tiny"), Layer("test", own)]
    return load_settings(RunSettings, layers).settings


def quiet(what: str) -> None:
    pass


def test_runs_of_other_parts_and_precision_meet_on_the_same_weights(run, monkeypatch):
    monkeypatch.setattr(duel, "HOPELESS", 0.0)  # this machine's bfloat16 may be
    bench = Bench(run, 0.0, 60.0, quiet)
    other = changed(bench.settings, {
        "model.feedforward.kernel": {"kind": "padded"}, "train.precision": "bfloat16",
        "train.gradient_accumulation": 2,
    })  # fmt: skip
    before, threads = bench._decoder.state_dict(), torch.get_num_threads()
    twin = bench._twin(other.model)
    assert twin is not bench._decoder
    ours, theirs = dict(bench._decoder.named_parameters()), dict(twin.named_parameters())
    assert all(theirs[name] is each for name, each in ours.items())
    random = torch.get_rng_state()
    found = bench(bench.settings, other, 3)
    assert torch.equal(random, torch.get_rng_state())
    assert len(found.rates) == len(found.gains) >= 1
    assert min(found.rates) > 0
    assert found.first > 0
    assert torch.get_num_threads() == threads
    assert before.keys() == twin.state_dict().keys()


def test_threads_are_as_many_as_the_side_says(run, monkeypatch):
    bench, seen = Bench(run, 0.0, 60.0, quiet), []
    find = torch.set_num_threads
    monkeypatch.setattr(torch, "set_num_threads", lambda n: seen.append(n) or find(n))
    bench(bench.settings, changed(bench.settings, {"train.threads": 2}), 1)
    assert {1, 2} <= set(seen)
    assert torch.get_num_threads() == 1


def test_what_does_not_fit_into_memory_is_refused(run, monkeypatch):
    bench = Bench(run, 0.0, 60.0, quiet)
    monkeypatch.setattr(memory, "memory_of", lambda device: 1000)
    with pytest.raises(SettingsError, match="would need about"):
        bench(bench.settings, bench.settings, 1)


def test_a_long_step_is_timed_on_fewer_rows(run):
    now = iter(range(0, 10**9, 10))
    bench = Bench(run, 0.0, 60.0, quiet, clock=lambda: float(next(now)))
    assert (bench.rows, len(bench._batch.tokens)) == (1, 1)


def test_a_precision_without_units_is_not_tried(run, monkeypatch):
    bench = Bench(run, 0.0, 60.0, quiet)
    slow = {"float32": 1.0, "bfloat16": 300.0}
    monkeypatch.setattr(duel, "product_times", lambda *given: slow)
    with pytest.raises(UserError, match=r"runs 0.0033 times as fast in bfloat16"):
        bench(bench.settings, changed(bench.settings, {"train.precision": "bfloat16"}), 1)


def test_what_takes_too_long_is_broken_off_and_the_bench_goes_on(run, monkeypatch):
    def endless(*given):
        while True:
            pass

    bench, given_up = Bench(run, 0.0, 0.2, quiet), []
    with monkeypatch.context() as patch:
        patch.setattr(duel, "in_turns", endless)
        patch.setattr(duel, "give_up_compiling", lambda: given_up.append(1))
        with pytest.raises(TimeoutError, match="not done after 0"):
            bench(bench.settings, bench.settings, 1)
        assert not given_up
    bench._limit = 60.0
    assert len(bench(bench.settings, bench.settings, 1).gains) >= 1
