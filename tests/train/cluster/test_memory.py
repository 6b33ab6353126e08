"""The memory of one device: today's count where it is alone, the right share where it is not."""

from __future__ import annotations

import pytest
import torch

from coterie.api.given import resolve
from coterie.train.cluster import Layout
from coterie.train.cluster.anatomy import Anatomy
from coterie.train.cluster.memory import DeviceMemory
from coterie.train.memory import estimate_memory
from coterie.train.precision import Precision
from coterie.train.pretraining import fill_vocabulary_size

FLOAT32 = Precision(torch.device("cpu"), "float32", "")


def counted(settings):
    return DeviceMemory(Anatomy(fill_vocabulary_size(settings, 300)), FLOAT32)


@pytest.mark.parametrize(
    ("name", "train"),
    [("quickstart", {"ema": 0.99}), ("s15era", {}), ("blues", {"activation_checkpointing": True})],
)
def test_alone_it_is_the_plan_of_one_device(name, train):
    settings = resolve(name, scale="tiny").settings
    model = settings.model.model_copy(update={"vocab_size": 300, "context": 32, "additive": ()})
    few = settings.train.model_copy(update={"batch_size": 4, "gradient_accumulation": 2, **train})
    settings = settings.model_copy(update={"train": few, "model": model})
    alone = Layout(pieces=2, recompute=few.activation_checkpointing)
    estimate_memory(settings, FLOAT32)  # a process's first count makes tables that are kept
    found = DeviceMemory(Anatomy(settings), FLOAT32)(alone)
    assert found == estimate_memory(settings, FLOAT32)


def test_shards_add_up_to_the_whole(tiny):
    memory = counted(tiny(train={"batch_size": 8}))
    whole, part = memory(Layout()), memory(Layout(shard=4))
    parameters = sum(each.parameters for each in memory.anatomy.groups.values())
    assert 4 * part["optimizer"] == pytest.approx(whole["optimizer"], abs=8)
    buffers = whole["weights"] - 4 * parameters
    assert 4 * (part["weights"] - buffers) == pytest.approx(4 * parameters, abs=8)
    assert 3.5 < whole["attention"] / part["attention"] < 4.5  # of its rows
    assert part["gathered"] > 0
    assert "gathered" not in whole
    assert memory.state(Layout(shard=4)) * 4 == pytest.approx(memory.state(Layout()), abs=8)


def test_replicas_hold_everything_and_experts_are_divided(tiny):
    memory = counted(tiny())
    groups = memory.anatomy.groups
    assert memory(Layout(data=2))["weights"] == memory(Layout())["weights"]
    divided = memory(Layout(data=2, expert=2))["weights"]
    assert memory(Layout())["weights"] - divided == 4 * groups["experts"].parameters // 2


def test_a_pipeline_is_as_full_as_its_fullest_stage(tiny):
    memory = counted(tiny(model={"layers": 4}, train={"batch_size": 8}))
    whole = memory(Layout(pieces=8))
    first = memory(Layout(pipeline=2, pieces=8))
    # Two micro-batches of half the layers are in flight in the first stage: all layers' worth.
    assert first["attention"] == pytest.approx(whole["attention"], rel=0.01)
    assert first["optimizer"] < whole["optimizer"]
    one = memory(Layout(pipeline=2, pieces=1))
    assert one["attention"] == pytest.approx(memory(Layout())["attention"] / 2, rel=0.01)


def test_tied_ends_are_held_by_both_stages(tiny):
    tied, untied = (counted(tiny(model={"head": {"tied": t}})) for t in (True, False))
    split = Layout(pipeline=2, pieces=4)
    tables = 300 * 16 * 4
    assert tied.state(split) == untied.state(split)  # of two tables, one each
    assert untied.state(Layout()) - tied.state(Layout()) == 3 * tables  # weights and two moments
