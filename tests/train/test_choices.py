"""What a run chooses by measuring: by its own passes, once per machine, and for good."""

from __future__ import annotations

import json

import pytest
import torch

from coterie.checkpoint import list_checkpoints, read_state
from coterie.checkpoint.state import ChoicesState
from coterie.foundation.event_log import read_events
from coterie.foundation.events import Notice
from coterie.foundation.runs import cache_root
from coterie.train import choices, train
from coterie.train.choices import (
    choose_precision,
    kept_choices,
    measure_passes,
    remembered,
    short_batch,
)
from coterie.train.events import RunStarted
from coterie.train.precision import resolve_precision
from coterie.train.session import open_session
from tests.train.test_turns import Clock

CPU = torch.device("cpu")
PLAIN, HALF = (resolve_precision(name, CPU) for name in ("float32", "bfloat16"))


@pytest.fixture
def long_enough(monkeypatch):
    """Let the tiniest run be worth a measurement."""
    monkeypatch.setattr(choices, "FEWEST_FLOPS", 0.0)


@pytest.fixture
def pretend(monkeypatch, long_enough):
    """Return what makes passes in bfloat16 so many times as fast as in float32."""

    def make(faster):
        def measure(plain, half, rehearse, clock):
            rehearse(half)
            return {"float32": 1.0, "bfloat16": 1.0 / faster}

        monkeypatch.setattr(choices, "measure_passes", measure)

    return make


def sized(settings):
    return settings.model_copy(
        update={"model": settings.model.model_copy(update={"vocab_size": 50})}
    )


def seconds(clock, product, step):
    """Return what `measure_passes` finds where bfloat16 takes so long in products and passes."""
    ways = {"float32": clock.work("f", 1.0), "bfloat16": clock.work("b", step)}
    find = choices.in_turns

    def turns(given, budget, clock, **more):
        if "bare" not in clock.done:  # the products come first
            clock.done.append("bare")
            given = {"float32": clock.work("x", 1.0), "bfloat16": clock.work("y", product)}
        return find(given, budget, clock, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choices, "in_turns", turns)
        return measure_passes(PLAIN, HALF, lambda each: ways[each.name](), clock)


def test_the_models_own_passes_decide_not_its_products():
    clock = Clock()
    assert seconds(clock, 0.4, 1.25) == {"float32": 1.0, "bfloat16": 1.25}
    assert clock.done[-4:] == ["f", "b", "f", "b"]


def test_a_pass_is_not_tried_where_products_are_hopeless():
    clock = Clock()
    found = seconds(clock, 30.0, 1.0)
    assert found["bfloat16"] == pytest.approx(30.0)
    assert found["product"]
    assert not {"f", "b"} & set(clock.done)


@pytest.mark.parametrize(
    ("found", "name", "told"),
    [
        ({"float32": 1.0, "bfloat16": 0.48}, "bfloat16", "forward and backward ran 2.1 times"),
        ({"float32": 1.0, "bfloat16": 0.98}, "float32", "forward and backward ran 1 times"),
        ({"float32": 1.0, "bfloat16": 20.0, "product": 256.0}, "float32", "a product ran 0.05"),
    ],
)
def test_the_choice_tells_why(tiny, long_enough, monkeypatch, found, name, told):
    monkeypatch.setattr(choices, "measure_passes", lambda *given: found)
    chosen = choose_precision(sized(tiny()), CPU, rehearse=lambda each: None)
    assert chosen.name == name
    assert told in chosen.reason


def test_a_measurement_is_made_once_per_shapes(tiny, long_enough, monkeypatch):
    asked = []
    monkeypatch.setattr(
        choices, "measure_passes", lambda *given: asked.append(1) or {"float32": 2, "bfloat16": 1}
    )
    settings = sized(tiny())
    assert choose_precision(settings, CPU).name == "float32"  # nothing is known, nothing measured
    for _ in range(3):
        assert choose_precision(settings, CPU, rehearse=print).name == "bfloat16"
    assert choose_precision(settings, CPU).name == "bfloat16"
    assert len(asked) == 1
    wider = settings.model_copy(update={"model": settings.model.model_copy(update={"width": 32})})
    choose_precision(wider, CPU, rehearse=print)
    assert len(asked) == 2
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        choose_precision(settings, CPU, rehearse=print)
    finally:
        torch.set_num_threads(threads)
    assert len(asked) == 3


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"seconds": {}}', '{"seconds": {"a": "b"}}'])
def test_a_damaged_measurement_is_made_again(tiny, damage):
    settings = sized(tiny())
    remembered("x", settings, CPU, lambda: {"a": 1.0})
    (file,) = (cache_root() / "choices").iterdir()
    file.write_text(damage)
    assert remembered("x", settings, CPU, None) is None
    assert remembered("x", settings, CPU, lambda: {"a": 2.0}) == {"a": 2.0}


def test_a_short_run_is_not_measured(tiny, new_run):
    session = open_session(tiny(), new_run("short"))
    assert (session.precision.name, session.compiled) == ("float32", False)
    assert "too short" in session.precision.reason
    assert not (cache_root() / "choices").exists()


def test_what_was_asked_for_is_taken_unmeasured(tiny, pretend):
    pretend(3.0)
    asked = sized(tiny(train={"precision": "float32"}))
    assert choose_precision(asked, CPU, rehearse=print).reason == "as asked for"


def test_measuring_changes_nothing_in_training(tiny, new_run, pretend):
    without = open_session(tiny(train={"precision": "bfloat16"}), new_run("without"))
    state = torch.get_rng_state()
    pretend(2.0)
    settings = tiny(train={"precision": "auto"}, model={"dropout": 0.1})
    measured = open_session(settings, new_run("measured"))
    assert measured.precision.name == "bfloat16"
    assert torch.equal(torch.get_rng_state(), state)
    ours, theirs = measured.decoder, without.decoder
    for (name, mine), other in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        assert torch.equal(mine, other), name
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)
        assert mine.grad is None


def test_a_resumed_run_goes_on_in_what_it_began_with(tiny, new_run, pretend):
    pretend(2.0)
    steady = {"schedule": {"kind": "constant", "warmup": 0}}
    whole = train(tiny(train=steady), new_run("whole"), preset="none")
    run = new_run("parts")
    train(tiny(train={"steps": 3, **steady}), run, preset="none")
    for file in (cache_root() / "choices").iterdir():
        file.unlink()
    pretend(0.5)
    result = train(tiny(train=steady), run, preset="none", resume=True)
    assert result.loss == whole.loss
    assert result.validation_loss == whole.validation_loss
    events = list(read_events(run.events))
    starts = [event.precision for event in events if isinstance(event, RunStarted)]
    assert starts == ["bfloat16", "bfloat16"]
    told = [event.message for event in events if isinstance(event, Notice)]
    assert any("in bfloat16 on cpu: forward and backward ran 2.0 times" in each for each in told)
    assert any("in bfloat16 on cpu: as when the run began" in each for each in told)
    (*_, last) = list_checkpoints(run.checkpoints)
    assert read_state(last).choices == ChoicesState(
        device="cpu", precision="bfloat16", compile=False, pieces=1
    )


def test_another_kind_of_device_chooses_anew(tiny):
    kept = ChoicesState(device="cuda", precision="bfloat16", compile=True)
    assert choose_precision(sized(tiny()), CPU, kept).name == "float32"


def test_checkpoints_of_before_were_float32(tiny, new_run):
    run = new_run("old")
    assert kept_choices(run) is None
    train(tiny(), run, preset="none")
    for path in list_checkpoints(run.checkpoints):
        state = json.loads((path / "state.json").read_text())
        del state["choices"]
        (path / "state.json").write_text(json.dumps(state))
    old = ChoicesState(device="cpu", precision="float32", compile=False)
    assert kept_choices(run) == old
    (path / "state.json").write_text("")  # damaged: the one before it is asked
    assert kept_choices(run) == old


def test_a_large_model_is_measured_on_few_tokens(tiny, new_run):
    session = open_session(tiny(train={"batch_size": 8}), new_run("x"))
    batch = session.loader().batch(0)
    assert short_batch(session.settings, batch).tokens.shape == (8, 16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choices, "_PASS_FLOPS", 0.0)
        patch.setattr(choices, "_PASS_TOKENS", 33)
        assert short_batch(session.settings, batch).tokens.shape == (2, 16)
        patch.setattr(choices, "_PASS_TOKENS", 5)
        assert short_batch(session.settings, batch).targets.shape == (1, 5)
