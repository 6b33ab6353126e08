"""Stages of a pipeline: the loss and every gradient are one process's, and so is what they read."""

from __future__ import annotations

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh

from coterie.parallel.pipeline import Pipeline, pipeline_problems, stretches

from .equal import BOUND, Case, batch_of, compared, drawn, spawn, tiny
from .test_expert import MTP, check
from .test_tensor import PRESETS

FOUR = {"layers": 4}
FEW = [
    Case("gpt2", pipeline=2, pieces=2),  # tied, learned positions
    Case("yinghub", MTP, pipeline=2, pieces=2),  # all that embeds at both ends
    Case("blues", FOUR, pipeline=2, pieces=2, schedule="interleaved"),
    Case("mymoe", FOUR, pipeline=2, pieces=2, schedule="zero_bubble"),
]
MANY = [
    *(Case(preset, pipeline=2, pieces=4) for preset in PRESETS),
    *(
        Case(preset, FOUR, pipeline=2, pieces=4, schedule=schedule)
        for preset in ("quickstart", "s15era", "yinggem")
        for schedule in ("interleaved", "zero_bubble")
    ),
    *(Case(preset, FOUR, pipeline=4, pieces=4) for preset in ("gpt2", "quickstart")),
    Case("s15era", pipeline=2, data=2, pieces=2),
    Case("yinghub", pipeline=2, expert=2, pieces=2),
    Case("blues", pipeline=2, tensor=2, pieces=2),
]


def test_two_processes_learn_what_one_does():
    check(spawn(2, compared, FEW))


@pytest.mark.distributed
@pytest.mark.parametrize("world", [2, 4])
def test_every_preset_learns_what_one_process_does(world):
    check(spawn(world, compared, [case for case in MANY if case.world == world]))


def read(rank, world):
    """Return how far losses, logits and loads of a pipeline are from a whole decoder's."""
    case, batch = Case("quickstart", MTP, pipeline=world), batch_of()
    whole, piped = drawn(case)[0].eval(), drawn(case)[0].eval()
    Pipeline(piped, init_device_mesh("cpu", (world,), mesh_dim_names=("pipeline",)))
    with torch.no_grad():
        expected, found = whole(batch.tokens, batch.targets), piped(batch.tokens, batch.targets)
        logits = piped(batch.tokens, last=1).logits - whole(batch.tokens, last=1).logits
    loads = [torch.equal(a.load, b.load) for a, b in zip(
        expected.router_stats, found.router_stats, strict=True)]  # fmt: skip
    return float((expected.losses - found.losses).abs().max()), float(logits.abs().max()), loads


@pytest.mark.distributed
def test_all_processes_read_what_a_whole_decoder_reads():
    losses, logits, loads = spawn(2, read)
    assert max(losses, logits) <= BOUND
    assert loads == [True] * 3


def test_what_cannot_be_cut_is_refused_in_words_all_at_once():
    layers, batches = pipeline_problems(tiny("gpt2"), 4, "1f1b", 2)
    assert "makes 4 stages, and there are 3 layers" in layers
    assert "train.gradient_accumulation to 4 or more" in batches
    (rounds,) = pipeline_problems(tiny("gpt2", layers=4), 2, "interleaved", 5)
    assert "a multiple of 2 works" in rounds
    assert not list(pipeline_problems(tiny("gpt2"), 2, "1f1b", 2))


@pytest.mark.parametrize(("layers", "stages"), [(3, 2), (7, 4), (4, 4)])
def test_stages_hold_each_block_once_and_evenly(layers, stages):
    found = stretches(layers, stages)
    assert [layer for stage in found for layer in stage] == list(range(layers))
    assert max(map(len, found)) - min(map(len, found)) <= 1
