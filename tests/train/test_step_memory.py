"""The memory of a step is known before: what torch's own profiler sees, to a few hundredths."""

import gc

import pytest
import torch

from coterie.train import step_memory
from coterie.train.memory import estimate_memory
from coterie.train.precision import resolve_precision
from coterie.train.roles import role_parameters
from coterie.train.session import make_stepper
from coterie.train.sketch import Shape

CASES = {
    "plain": {},
    "pieces": {"train": {"gradient_accumulation": 4}},
    "recomputed": {"train": {"activation_checkpointing": True}, "model": {"layers": 4}},
    "selective": {"train": {"activation_checkpointing": "selective"}},
    "bfloat16": {"train": {"precision": "bfloat16"}},
    "adafactor": {"train": {"optimizer": "adafactor", "ema": 0.9}},
    "adamw8bit": {"train": {"optimizer": "adamw8bit"}, "model": {"width": 128}},
    "muon": {"train": {"optimizer": "muon"}},
    "alternate": {
        "model": {
            "layers": 8,
            "blocks": {"dense": {"feedforward": "dense"}, "moe": {}},
            "opening": ["dense"],
            "pattern": ["moe", "dense"],
        }
    },
}
SIZES = {"vocab_size": 300, "width": 64, "context": 64}


def allocated(run, precision, batch):
    """Return the most bytes that torch's allocator held in two steps, by its profiler."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as record:
        decoder = run.model.build().train()
        decoder.activation_checkpointing = run.train.activation_checkpointing
        optimizer = run.train.optimizer.build(role_parameters(decoder))
        stepper = make_stepper(run, decoder, optimizer, precision)
        if run.train.ema:
            stepper.average = step_memory.WeightAverage(role_parameters(decoder), run.train.ema)
        for step in range(2):
            stepper(step, batch)
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    now, most = 0, 0
    for event in sorted(events, key=lambda each: each.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


@pytest.mark.parametrize("case", CASES)
def test_it_is_what_the_profiler_sees_and_leaves_nothing_behind(tiny, batch_of, case):
    changes = dict(CASES[case])
    changes["model"] = {**SIZES, **changes.get("model", {})}
    changes["train"] = {"precision": "float32", "batch_size": 8, **changes.get("train", {})}
    run = tiny(**changes)
    precision = resolve_precision(run.train.precision, torch.device("cpu"))
    parts = estimate_memory(run, precision)
    gc.collect()
    assert not [each for each in gc.get_objects() if type(each) is Shape]
    batch = batch_of(run)
    assert sum(parts.values()) == pytest.approx(allocated(run, precision, batch), rel=0.05)
    assert parts["weights"] >= 4 * sum(p.tensor.numel() for p in role_parameters(run.model.build()))


@pytest.mark.parametrize("pieces", [1, 2])
def test_what_further_layers_add_is_added(tiny, monkeypatch, pieces):
    run = tiny(
        model={**CASES["alternate"]["model"], **SIZES, "layers": 11},
        train={"gradient_accumulation": pieces},
    )
    precision = resolve_precision("float32", torch.device("cpu"))
    short = estimate_memory(run, precision)
    monkeypatch.setattr(step_memory, "_COUNTED", 100)
    whole = estimate_memory(run, precision)
    assert sum(short.values()) == pytest.approx(sum(whole.values()), rel=0.002)
