"""A memory profile: what each part holds in real steps, and that nothing else changes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from coterie.checkpoint import list_checkpoints
from coterie.foundation.errors import RunError, UserError
from coterie.foundation.events import Notice
from coterie.train import memory_profile, train
from coterie.train.events import MemoryProfiled, StepDone
from coterie.train.live_memory import LiveMemory
from coterie.train.precision import resolve_precision
from coterie.train.roles import role_parameters
from coterie.train.session import make_stepper


def trained(settings, run, **options):
    """Return the events of a run."""
    heard = []
    train(settings, run, preset="tiny", observers=[heard.append], **options)
    return heard


def of(kind, events):
    return [each for each in events if isinstance(each, kind)]


def test_steps_are_told_by_part_and_stay_what_they_are(tiny, new_run):
    settings = tiny(train={"gradient_accumulation": 2, "precision": "float32"})
    runs = new_run("plain"), new_run("watched")
    plain = trained(settings, runs[0])
    found = trained(settings, runs[1], look=memory_profile.memory_profile(3))
    losses = [[(e.loss, e.gradient_norm) for e in of(StepDone, each)] for each in (plain, found)]
    assert losses[0] == losses[1]
    last = [list_checkpoints(run.checkpoints)[-1] / "model.safetensors" for run in runs]
    assert last[0].read_bytes() == last[1].read_bytes()

    assert not of(MemoryProfiled, plain)
    told = of(MemoryProfiled, found)
    assert [event.step for event in told] == [2, 3, 6]
    parts = {part.name: part for part in told[-1].parts}
    weights = parts["weights"].forward
    assert {"attention", "experts", "router", "norms", "head and loss", "embedding"} <= parts.keys()
    assert parts["weights"].backward == parts["weights"].update == weights
    assert parts["weights"].allocated == 0  # they were there before
    assert parts["gradients"].update == parts["gradients"].allocated
    assert parts["gradients"].update == pytest.approx(weights, rel=0.01)  # without the biases
    assert parts["optimizer"].forward == pytest.approx(2 * weights, rel=0.05)  # two moments
    assert 0 < parts["batches"].forward < weights
    assert parts["experts"].allocated > parts["experts"].forward > 0
    assert told[-1].process_bytes > sum(told[-1].at_peak().values())
    assert told[-1].peak_phase in ("forward", "backward", "update")
    assert max(told[-1].at_peak().values()) == told[-1].at_peak()[told[-1].parts[0].name]
    assert told[-1].snapshot is None
    assert not told[-1].on_device


def test_without_an_interval_it_is_told_at_the_second_step_and_the_last(tiny, new_run):
    found = trained(tiny(), new_run("run"), look=memory_profile.memory_profile())
    assert [event.step for event in of(MemoryProfiled, found)] == [2, 6]


@pytest.mark.parametrize("kind", ["adamw", "adamw8bit", "adafactor", "muon"])
def test_what_an_optimizer_keeps_between_steps_is_counted(tiny, batch_of, kind):
    if kind == "adamw8bit":
        pytest.importorskip("torchao")
    run = tiny(
        model={"vocab_size": 300, "width": 32}, train={"optimizer": kind, "precision": "float32"}
    )
    decoder = run.model.build().train()
    parameters = role_parameters(decoder)
    optimizer = run.train.optimizer.build(parameters)
    precision = resolve_precision("float32", torch.device("cpu"))
    make_stepper(run, decoder, optimizer, precision)(0, batch_of(run))
    live = LiveMemory()
    live.hold_all(decoder.parameters(), "weights")
    live.hold_all(memory_profile.tensors_of(optimizer, set()), "optimizer")
    known = run.train.optimizer.state_bytes(parameters)
    assert live.live["optimizer"] == pytest.approx(known, rel=0.1)


@pytest.mark.parametrize("every", [0, -3])
def test_an_interval_of_no_step_is_refused(every):
    with pytest.raises(UserError, match=f"at least one step, and {every} was asked for"):
        memory_profile.memory_profile(every)


def test_an_interval_that_the_run_does_not_reach_is_refused_before_it_begins(tiny, new_run):
    run = new_run("short")
    with pytest.raises(RunError, match="every 7 steps, and only 6 are left") as caught:
        trained(tiny(), run, look=memory_profile.memory_profile(7))
    assert caught.value.hint == (
        "Report more often (--report-interval 1) or train for longer: train.steps=7"
    )
    assert not run.path.exists()


def test_a_compiled_run_is_refused(tiny):
    session = SimpleNamespace(
        settings=tiny(), progress=SimpleNamespace(step=0), compiled=True, stepper=None
    )
    with pytest.raises(RunError, match="cannot be seen") as caught:
        memory_profile.memory_profile(2)(session, None)
    assert "train.compile=false" in caught.value.hint


@pytest.mark.parametrize("full", [False, True])
def test_a_gpu_leaves_a_snapshot_of_its_allocator(tiny, new_run, monkeypatch, full):
    calls = []

    def dump(path):
        calls.append("dump")
        if full:
            raise OSError("No space left on device")
        with open(path, "wb") as file:
            file.write(b"snapshot")

    def record(enabled="all", max_entries=0):
        calls.append("on" if enabled else "off")

    monkeypatch.setattr(memory_profile, "_on_gpu", lambda device: True)
    monkeypatch.setattr(torch.cuda.memory, "_record_memory_history", record)
    monkeypatch.setattr(torch.cuda.memory, "_dump_snapshot", dump)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 123)
    run = new_run("gpu")
    found = trained(tiny(), run, look=memory_profile.memory_profile(6))
    told = of(MemoryProfiled, found)
    path = run.profile / "memory.pickle"
    assert calls == ["on", "dump", "off"] * 2
    assert [event.process_bytes for event in told] == [123, 123]
    assert [event.snapshot for event in told] == [None if full else str(path)] * 2
    assert path.exists() == (not full)
    warned = [each.message for each in of(Notice, found) if each.level == "warning"]
    assert any("No space left" in each for each in warned) == full
