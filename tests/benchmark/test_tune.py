"""The search for what is fastest, with a judge who needs no time."""

from __future__ import annotations

import pytest
import torch
import yaml

from coterie.benchmark import tune as tuning
from coterie.benchmark.tune import FINAL_TURNS, Duel, changed, tune
from coterie.foundation.layers import file_layer, load_settings
from coterie.presets import preset_layers
from coterie.train import RunSettings

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine of four cores, two of them in use, with a compiler."""
    monkeypatch.setattr(tuning, "usable_cores", lambda: range(4))
    monkeypatch.setattr(tuning.torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(tuning, "missing_compiler", lambda device: None)


def preset(name="quickstart", **train):
    run = load_settings(RunSettings, preset_layers(name, "tiny")).settings
    return run.model_copy(update={"train": run.train.model_copy(update=train)})


def judge(speed, first=0.0):
    """Return a judge of runs whose speeds a function knows."""

    def meet(best, other, turns):
        gain = speed(other) / speed(best)
        return Duel((speed(other),) * turns, (gain,) * turns, first)

    return meet


def kernels(run):
    return run.model.feedforward.kernel.kind


def search(run, speed, precision="float32", **more):
    return tune(run, judge(speed, **more), precision=precision, device=CPU)


def line(found, factor, choice):
    (trial,) = (t for t in found.trials if (t.factor, t.choice) == (factor, choice))
    return trial


def test_what_is_faster_is_found_and_each_factor_builds_on_the_best_so_far():
    def speed(run):
        half = run.train.precision == "bfloat16"
        kernel = {"padded": 1.2, "grouped": 1.1}.get(kernels(run), 1.0)
        return 100.0 * (2.0 if half else 1.0) * (kernel if half else 1.0)

    found = search(preset(), speed)
    assert found.changes["train.precision"] == "bfloat16"
    assert found.changes["model.feedforward.kernel"] == {"kind": "padded"}
    assert found.gain == pytest.approx((2.4, 2.4, 2.4))
    assert line(found, "experts", "padded").rate == pytest.approx(240)
    assert line(found, "experts", "padded").gain[0] == pytest.approx(2.4 / 2.2)
    assert not line(found, "threads", "1").chosen


@pytest.mark.parametrize(
    ("gains", "won"),
    [((1.02,) * 5, False), ((1.2, 1.2, 0.9, 1.2), True), ((1.2, 1.2, 0.9, 0.9, 1.2), False)],
)
def test_what_may_be_chance_is_not_taken(gains, won):
    assert Duel((1.0,), gains).won == won


def test_where_nothing_is_faster_nothing_is_recommended():
    found = search(preset(), lambda run: 1.0)
    assert (found.changes, found.gain) == ({}, None)
    assert yaml.safe_load(found.overlay()) == {}
    assert found.verdict() == "Nothing is faster than the settings as they are."


@pytest.mark.parametrize(
    ("gains", "recommended"),
    [
        ((1.5,) * 16 + (0.9,) * 5, True),
        ((1.5,) * 15 + (0.9,) * 6, False),
        ((1.01,) * 21, False),
        (None, False),
    ],
)
def test_what_won_is_recommended_only_if_all_of_it_wins_again(gains, recommended):
    def meet(best, other, turns):
        if turns == FINAL_TURNS:
            if gains is None:
                raise MemoryError
            return Duel((1.0,) * len(gains), gains)
        return judge(lambda run: 2.0 if kernels(run) == "padded" else 1.0)(best, other, turns)

    found = tune(preset(), meet, precision="float32", device=CPU)
    assert found.taken == {"model.feedforward.kernel": {"kind": "padded"}}
    assert bool(found.changes) == recommended
    assert ("too little to tell from chance" in found.verdict()) == (
        not recommended and gains is not None
    )
    assert yaml.safe_load(found.overlay()) == found.as_json()["overlay"]


def test_the_precision_that_auto_took_is_not_tried_against_itself():
    choices = [t.choice for t in search(preset(), lambda run: 1.0, "bfloat16").trials]
    assert "float32" in choices
    assert "bfloat16" not in choices


def test_one_core_no_compiler_and_no_experts_are_told(monkeypatch):
    monkeypatch.setattr(tuning, "usable_cores", lambda: [0])
    monkeypatch.setattr(tuning, "missing_compiler", lambda device: "there is no C++ compiler")
    found = search(preset("gpt2", batch_size=1), lambda run: 1.0)
    told = {t.factor: t.note for t in found.trials if t.rate is None}
    assert told["threads"] == "nothing to choose: one core"
    assert told["compile"] == "not tried: there is no C++ compiler"
    assert told["micro-batch"].startswith("nothing to choose")
    assert told["experts"].startswith("nothing to choose")


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (RuntimeError("a mask it cannot compute\nand more"), "a mask it cannot compute"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:128] can't allocate memory"), "not enough"),
        (MemoryError(), "not enough memory"),
        (TimeoutError("it was not done after 180 s"), "it was not done after 180 s"),
    ],
)
def test_what_cannot_be_tried_is_told_and_the_others_still_are(error, why):
    def meet(best, other, turns):
        if kernels(other) == "grouped":
            raise error
        return judge(lambda run: 2.0 if kernels(run) == "padded" else 1.0)(best, other, turns)

    found = tune(preset(), meet, precision="float32", device=CPU)
    assert line(found, "experts", "grouped").note.startswith(f"not tried: {why}")
    assert line(found, "experts", "padded").chosen


@pytest.mark.parametrize(("steps", "taken"), [(100, False), (10_000, True)])
def test_compiling_must_pay_over_the_whole_run(steps, taken):
    def speed(run):
        return 256.0 if run.train.compile else 128.0  # a step of 128 tokens gains half a second

    run = preset(steps=steps)
    found = search(run, speed, first=1000.0)
    trial = line(found, "compile", "yes")
    assert (trial.chosen, "train.compile" in found.changes) == (taken, taken)
    assert f"over {steps:,} steps, takes 1,000 s" in trial.note


def test_a_micro_batch_is_a_share_of_the_same_batch():
    run = preset(batch_size=8, gradient_accumulation=2)
    found = search(run, lambda run: run.train.micro_batch_size)
    assert [t.choice for t in found.trials if t.factor == "micro-batch"] == [
        "8 rows", "2 rows", "1 rows",
    ]  # fmt: skip
    assert found.changes["train.gradient_accumulation"] == 1


def test_the_overlay_is_a_layer_of_settings(tmp_path):
    found = search(preset(), lambda run: 2.0 if run.train.threads == 4 else 1.0)
    (tmp_path / "o.yaml").write_text(found.overlay())
    layers = [*preset_layers("quickstart", "tiny"), file_layer(tmp_path / "o.yaml")]
    assert load_settings(RunSettings, layers).settings == changed(preset(), found.changes)
    assert (
        "2.00 times as fast as the settings as they were (quartiles 2.00–2.00, 21 turns)"
        in found.overlay()
    )


def test_every_layer_that_varies_is_changed():
    run = load_settings(RunSettings, preset_layers("s15era", "tiny")).settings
    found = search(run, lambda run: 2.0 if '"sdpa"' in run.model_dump_json() else 1.0)
    kept = changed(run, found.changes).model_dump_json()
    assert '"backend":{"kind":"auto"}' not in kept
