"""Experts spread over processes: the loss, every gradient and every load are one process's."""

from __future__ import annotations

import pytest

from coterie.parallel.expert import expert_problems

from .equal import BOUND, Case, compared, spawn, tiny

MTP = {"mtp": {"depth": 2}}
FEW = [
    Case("yinghub", expert=2),  # unequal packs, a capacity that rows of all processes share
    Case("s15era", MTP, expert=2, pieces=2),  # seven experts by two, one shared
]
MANY = [
    Case(preset, changes, data=data, expert=expert)
    for preset, changes in (
        ("blues", {}), ("mymoe", {}), ("quickstart", {}), ("quickstart", MTP), ("s15era", {}),
        ("yinghub", {}),
    )
    for data, expert in ((1, 2), (2, 2), (1, 4))
    if expert == 2 or preset not in ("mymoe", "yinghub")
]  # fmt: skip


def check(told):
    for case, (loss, gradient, name, loads) in told.items():
        assert loss <= BOUND, case
        assert gradient <= BOUND, (case, name)
        assert loads, case


def test_two_processes_learn_what_one_does():
    check(spawn(2, compared, FEW))


@pytest.mark.distributed
@pytest.mark.parametrize("world", [2, 4])
def test_every_preset_with_experts_learns_what_one_process_does(world):
    check(spawn(world, compared, [case for case in MANY if case.world == world]))


@pytest.mark.distributed
def test_processes_that_no_token_comes_to_take_part():
    # One expert for all tokens: of four processes three compute nothing, and none waits.
    feed = {"experts_per_token": 1, "balance": {"kind": "auxiliary"}}
    case = Case("quickstart", {"feedforward": feed}, expert=4, one_expert=True)
    check(spawn(4, compared, [case]))


@pytest.mark.parametrize(
    ("preset", "processes", "word"),
    [
        ("gpt2", 2, "none; set it to 1"),
        ("mymoe", 4, "next that works is 2"),
        ("s15era", 5, "next that works is 4"),
    ],
)
def test_what_cannot_be_spread_is_refused_in_words(preset, processes, word):
    (problem,) = expert_problems(tiny(preset), processes)
    assert problem.endswith(word)


def test_what_can_be_spread_is_not():
    assert not list(expert_problems(tiny("s15era"), 4))
    assert not list(expert_problems(tiny("gpt2"), 1))


def test_a_kernel_that_measures_is_refused():
    model = tiny("quickstart")
    words = model.model_dump()
    words["feedforward"]["kernel"] = {"kind": "measured"}
    (problem,) = expert_problems(type(model).model_validate(words), 2)
    assert "measured" in problem
