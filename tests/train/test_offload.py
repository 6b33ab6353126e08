"""What waits in host memory comes back as it was: a step's bits do not change."""

from __future__ import annotations

import pytest
import torch

from coterie.foundation.errors import SettingsError
from coterie.train import offload, train
from coterie.train.memory import estimate_memory
from coterie.train.offload import OffloadedOptimizer, build_optimizer
from coterie.train.precision import resolve_precision
from coterie.train.roles import role_parameters
from coterie.train.session import make_stepper

CPU = torch.device("cpu")


def stepped(run, batch, steps=3):
    """Return decoder, losses and optimizer after a few steps."""
    torch.manual_seed(5)
    decoder = run.model.build().train()
    decoder.activation_checkpointing = run.train.activation_checkpointing
    optimizer = build_optimizer(run.train, role_parameters(decoder))
    stepper = make_stepper(run, decoder, optimizer, resolve_precision(run.train.precision, CPU))
    losses = [stepper(step, batch).loss for step in range(steps)]
    return decoder, losses, optimizer


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.fixture
def moved(monkeypatch):
    """Let everything be large enough to move; return the places of what was, with the shapes."""
    places, plain = {}, offload._away

    def away(tensor):
        places[tensor.data_ptr()] = tuple(tensor.shape)
        return plain(tensor)

    monkeypatch.setattr(offload, "_away", away)
    monkeypatch.setattr(offload, "_LEAST", 0)
    monkeypatch.setattr(offload, "_AT_ONCE", 1 << 12)
    return places


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("again", [False, "selective", True])
def test_activations_that_went_away_give_the_same_bits(tiny, batch_of, moved, precision, again):
    changes = {"precision": precision, "activation_checkpointing": again}
    changes["gradient_accumulation"] = 2
    model = {"dropout": 0.1, "vocab_size": 30}
    run = tiny(train=changes, model=model)
    batch = batch_of(run)
    plain, losses, _ = stepped(run, batch)
    assert not moved
    away = tiny(train={**changes, "offload": "activations"}, model=model)
    decoder, lost, _ = stepped(away, batch)
    assert lost == losses
    assert_same(decoder.state_dict(), plain.state_dict())
    assert not {each.data_ptr() for each in decoder.parameters()} & set(moved)
    assert (2, 16, 16) in moved.values()  # [rows of a micro-batch, tokens, channels]


@pytest.mark.parametrize("kind", ["adamw", "adafactor", "muon", "adamw8bit"])
def test_a_state_that_went_away_gives_the_same_bits(tiny, batch_of, moved, kind):
    if kind == "adamw8bit":
        pytest.importorskip("torchao")
    model = {"vocab_size": 30, "width": 64}
    run = tiny(train={"optimizer": {"kind": kind}}, model=model)
    away = tiny(train={"optimizer": {"kind": kind}, "offload": ["optimizer"]}, model=model)
    batch = batch_of(run)
    wanted, losses, plain = stepped(run, batch)
    assert not moved
    found, lost, optimizer = stepped(away, batch)
    assert moved
    assert isinstance(optimizer, OffloadedOptimizer)
    assert len(optimizer._chunks) > 3
    assert lost == losses
    assert_same(found.state_dict(), wanted.state_dict())
    assert_same(optimizer.state(), plain.state())
    fresh = build_optimizer(away.train, role_parameters(run.model.build()))
    assert fresh.load_state(plain.state()) == set(plain.state())
    assert_same(fresh.state(), plain.state())


def test_a_run_without_a_gpu_is_refused(tiny, new_run):
    with pytest.raises(SettingsError, match=r"train\.offload moves tensors from a GPU's memory"):
        train(tiny(train={"offload": "activations", "device": "cpu"}), new_run("a"), preset="tiny")
    with pytest.raises(SettingsError, match="“weights” cannot be offloaded"):
        tiny(train={"offload": ["weights"]})


def test_what_is_away_is_not_in_the_estimate(tiny, monkeypatch):
    """A device without numbers stands in for the host, so that the CPU stands in for a GPU."""
    model = {"vocab_size": 300, "width": 64, "context": 64, "layers": 6}
    precision = resolve_precision("float32", CPU)

    def estimate(**changes):
        changes = {"precision": "float32", "batch_size": 8, **changes}
        return estimate_memory(tiny(model=model, train=changes), precision)

    plain = estimate()
    monkeypatch.setattr(offload, "_away", lambda tensor: tensor.detach().to("meta", copy=True))
    away = estimate(offload="activations")
    held = ("weights", "optimizer", "gradients")
    activations = sum(plain.values()) - sum(plain.get(part, 0) for part in held)
    left = sum(away.values()) - sum(away.get(part, 0) for part in held)
    assert left < 0.4 * activations
    monkeypatch.setattr(offload, "_AT_ONCE", 1 << 12)
    state = estimate(offload="optimizer")
    assert "optimizer" not in state
    left = sum(plain.values()) - plain["optimizer"]
    assert sum(state.values()) == pytest.approx(left, rel=0.005)
    both = estimate(offload=["activations", "optimizer"])
    assert sum(both.values()) < min(sum(state.values()), sum(away.values()))
