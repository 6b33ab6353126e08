"""The cheapest settings that fit are found, and none that cost more are proposed."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from coterie.foundation.layers import Layer, load_settings, overrides_layer
from coterie.train import RunSettings, fitting
from coterie.train.flops import recomputing, step_flops
from coterie.train.precision import Precision

MIB = 1 << 20
KEPT = {False: 10, "selective": 6, True: 3}
STATE = {"adamw": 80, "adamw8bit": 20, "adafactor": 1}


@pytest.fixture
def change(tiny):
    """Return how words are laid over a run of batches of eight rows."""
    base = tiny(train={"batch_size": 8, "precision": "float32"}, model={"vocab_size": 30})

    def laid(words, base=base):
        layers = [Layer("base", base.model_dump(mode="json")), overrides_layer(words)]
        return load_settings(RunSettings, layers).settings

    return laid


@pytest.fixture(params=[False, True], ids=["plain", "halves"])
def counted(request, monkeypatch):
    """Stand in for counting: whole rows and gradients in MiB; return what was counted."""
    asked = []

    def estimate(settings, precision):
        train = settings.train
        asked.append(settings)
        rows = train.micro_batch_size * KEPT[train.activation_checkpointing]
        rows = 1 if train.offload.activations else rows
        state = 0 if train.offload.optimizer else STATE[train.optimizer.kind]
        pieces = train.gradient_accumulation > 1
        parts = {
            "weights": 40,
            "gradients": 40 if pieces else 2,
            "optimizer": state,
            "attention": rows // 2 if precision.name == "bfloat16" else rows,
        }
        return {name: size * MIB for name, size in parts.items()}

    monkeypatch.setattr(fitting, "estimate_memory", estimate)
    monkeypatch.setattr(fitting, "has_bfloat16", lambda device: request.param)
    monkeypatch.setattr(fitting, "_has_torchao", lambda: request.param)
    return asked


def all_there_are(change, halves):
    """Yield (costs, bytes) of every combination, by the stand-in."""
    levels = [(1, 2, 4, 8), (False, "selective", True), (False, True)[: 1 + halves],
              (80, 20, 1) if halves else (80, 1)]  # fmt: skip
    for turned in product(*(range(len(each)) for each in levels)):
        pieces, kept, half, held = (each[at] for each, at in zip(levels, turned, strict=True))
        rows = 8 // pieces * KEPT[kept]
        sizes = 40, 40 if pieces > 1 else 2, held, rows // 2 if half else rows
        yield turned[::-1], sum(sizes) * MIB


def test_what_is_proposed_is_the_cheapest_of_all_that_fit(change, counted, request):
    halves = request.node.callspec.params["counted"]
    every = list(all_there_are(change, halves))
    for room in range(40, 210, 9):
        counted.clear()
        limit = fitting._LIBRARIES + round(room * MIB / 0.95)
        found = fitting.fit(change, limit)
        fitting_ones = [each for each in every if each[1] <= fitting.usable(limit)]
        if not fitting_ones:
            assert found.proposal is None
            assert found.least.memory_bytes == min(size for _, size in every)
            assert found.least_limit == pytest.approx(
                found.least.memory_bytes / 0.95 + fitting._LIBRARIES, abs=2
            )
        else:
            assert found.proposal.memory_bytes == min(fitting_ones)[1]
            assert len(found.proposal.costs) == sum(level > 0 for level in min(fitting_ones)[0])
        assert len(counted) <= 14
        assert len(found.candidates) == len({each.words for each in found.candidates})
        assert bool(found.left_out) is not halves


def test_costs_are_told_with_words_that_do_what_they_say(change, counted):
    found = fitting.fit(change, fitting._LIBRARIES + 75 * MIB)
    assert found.proposal.words[-3:] == (
        "train.optimizer=adafactor",
        "train.optimizer.learning_rate=0.01",
        "train.optimizer.weight_decay=0",
    )
    assert "CHANGES THE TRAINING" in found.proposal.costs[-1]
    run = change(found.proposal.words)
    assert run.train.optimizer.kind == "adafactor"
    assert run.train.optimizer.learning_rate == 0.01
    again = change(["train.activation_checkpointing=true", "train.gradient_accumulation=8"])
    known = fitting.fit(lambda words: change(words, base=again), fitting._LIBRARIES + 20 * MIB)
    told = " ".join(word for each in known.candidates for word in each.words)
    assert "gradient_accumulation" not in told  # as small as can be, and nothing more to recompute
    assert "activation_checkpointing" not in told


def test_a_run_that_fits_is_counted_once_and_left_as_it_is(change, counted):
    found = fitting.fit(change, 1 << 40)
    assert found.proposal.words == ()
    assert found.proposal.groups == {
        "weights": 40 * MIB, "gradients": 2 * MIB, "optimizer": 80 * MIB, "activations": 80 * MIB,
    }  # fmt: skip
    assert len(counted) == 1


def test_the_memory_is_that_of_the_proposed_run(change):
    plain = fitting.fit(change, 1 << 40).proposal.memory_bytes
    found = fitting.fit(change, fitting._LIBRARIES + round(0.9 * plain / 0.95))
    assert found.proposal.words
    assert found.proposal.memory_bytes <= 0.9 * plain
    run = change(found.proposal.words)
    assert found.proposal.memory == fitting.estimate_memory(run, fitting._precision(run))


def test_recomputing_adds_the_forward_pass_of_the_blocks_alone(change):
    run = change(["model.layers=12"])
    twice = change(["model.layers=24"])
    blocks = (step_flops(twice) - step_flops(run)) / 3  # of twelve, forward
    assert recomputing(run) == pytest.approx(blocks / step_flops(run))
    assert recomputing(run) < 1 / 3


def test_on_a_gpu_what_waits_in_host_memory_is_tried_before_numbers_are_rounded(
    change, counted, monkeypatch
):
    assert "offload" not in str([each.words for each in fitting.fit(change, 1).candidates])
    gpu = Precision(torch.device("cuda"), "float32", "for the test")
    monkeypatch.setattr(fitting, "_precision", lambda run: gpu)

    def proposed(room):
        limit = fitting._LIBRARIES + round(room * MIB / 0.95) + 2
        return change(fitting.fit(change, limit).proposal.words).train

    most = proposed(40 + 40 + 80 + 2)  # 40 without micro-batches, but 80 with eight rows
    assert (most.offload.anything, most.activation_checkpointing) == (False, True)
    away = proposed(40 + 2 + 80 + 1)
    assert (away.offload.activations, away.offload.optimizer) == (True, False)
    assert away.activation_checkpointing is False
    both = proposed(40 + 2 + 1)
    assert (both.offload.activations, both.offload.optimizer) == (True, True)
    assert both.optimizer.kind == "adamw"
