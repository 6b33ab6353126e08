"""Matrices divided among processes: the loss and every gradient are one process's."""

from __future__ import annotations

import pytest

from coterie.parallel.tensor import tensor_problems

from .equal import Case, compared, spawn, tiny
from .test_expert import MTP, check

NORM_OVER_ALL = {"attention": {"query_key_norm": {"kind": "rms"}, "query_key_norm_over": "all"}}
SHARED_KEY = {
    "attention": {"rotary_key": "shared", "latent_norm": {"kind": "rms"}, "query_rank": None}
}
FEW = [
    Case("blues", tensor=2),  # one key head for all, dense layers and experts
    Case("s15era", MTP, tensor=2),  # latent attention, a shared expert
    Case("mymoe", tensor=2),  # latent vectors, a capacity
    Case("gpt2", NORM_OVER_ALL, tensor=2),  # tied head and embedding cut by 61 rows
]
PRESETS = ("blues", "gpt2", "mymoe", "quickstart", "s15era", "sonnet", "yinggem", "yinghub")
MANY = [
    *(Case(preset, tensor=tensor) for preset in PRESETS for tensor in (2, 4)),
    *(Case(preset, data=2, tensor=2, pieces=2) for preset in PRESETS),
    *(Case(preset, expert=2, tensor=2) for preset in ("blues", "s15era", "yinghub")),
    Case("s15era", SHARED_KEY, tensor=2),
    Case("mymoe", {"attention": {"kv_heads": 4}}, tensor=4),
    Case("gpt2", {"attention": {"query_key_norm": {"kind": "layer"}}}, tensor=4),
]


def test_two_processes_learn_what_one_does():
    check(spawn(2, compared, FEW))


@pytest.mark.distributed
@pytest.mark.parametrize("world", [2, 4])
def test_every_preset_learns_what_one_process_does(world):
    check(spawn(world, compared, [case for case in MANY if case.world == world]))


@pytest.mark.parametrize(
    ("preset", "changes", "processes", "words"),
    [
        ("gpt2", {}, 5, ["4 attention heads; what does: 1, 2, 4", "384 hidden channels"]),
        ("yinggem", {"layers": 1}, 8, ["4 attention heads"]),
        (
            "mymoe",
            {"attention": {"heads": 12, "head_dim": 4, "kv_heads": 6}},
            4,
            ["6 attention kv"],
        ),
    ],
)
def test_what_cannot_be_divided_is_refused_in_words_all_at_once(preset, changes, processes, words):
    problems = list(tensor_problems(tiny(preset, **changes), processes))
    assert all(any(word in problem for problem in problems) for word in words), problems


def test_what_can_be_divided_is_not():
    for preset in PRESETS:
        assert not list(tensor_problems(tiny(preset), 2))
        assert not list(tensor_problems(tiny(preset), 1))
