"""The same global batch, the same losses: every layout of a run, against one process."""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import stat
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from coterie.parallel.shard import SumOfPieces

from .processes import run
from .runs import settings, trained

PLAIN: dict[str, Any] = {}
EVERYTHING: dict[str, Any] = {
    "train": {
        "optimizer": {"kind": "muon"}, "gradient_accumulation": 2, "sample_every": 3,
        "ema": 0.9, "health_every": 3, "activation_checkpointing": True,
    },
    "model": {
        "dropout": 0.1, "mtp": {"depth": 1},
        "feedforward": {
            "router": {"noise": {"kind": "gaussian"}}, "capacity_factor": 1.1,
            "balance": {"kind": "auxiliary"},
        },
    },
}  # fmt: skip


# Stages draw by themselves, so what is compared there draws nothing.
QUIET = {**EVERYTHING, "model": EVERYTHING["model"] | {
    "dropout": 0.0, "layers": 4, "blocks": {"dense": {"feedforward": {"kind": "dense"}}, "moe": {}},
    "pattern": ["dense", "moe"],
    "feedforward": EVERYTHING["model"]["feedforward"] | {"router": {"noise": {"kind": "none"}}},
}}  # fmt: skip
# Whole documents of unequal length: what is left of a row is padding, and counts nowhere.
PADDED = {"data": {"packing": "whole", "split": "documents"}}
TWO = [
    (PLAIN, {"data": 2}), (EVERYTHING, {"shard": 2, "prefetch": 2}),
    (EVERYTHING, {"data": 2, "expert": 2}), (EVERYTHING, {"tensor": 2}), (QUIET, {"pipeline": 2}),
]  # fmt: skip
MORE = [
    (QUIET, {"pipeline": 2, "schedule": "interleaved"}),
    (QUIET, {"pipeline": 2, "schedule": "zero_bubble"}),
    (PLAIN, {"data": 4}),
    (PADDED, {"shard": 2}),
    (PADDED, {"data": 2, "expert": 2, "tensor": 2}),
    (EVERYTHING, {"data": 2, "shard": 2}),
    (EVERYTHING, {"data": 2, "tensor": 2}),
    (EVERYTHING, {"shard": 2, "tensor": 2}),
    (QUIET, {"tensor": 2, "sequence": True}),
    (QUIET, {"data": 2, "expert": 2, "tensor": 2, "sequence": True}),
    (EVERYTHING, {"shard": 4, "expert": 2}),
    (EVERYTHING, {"data": 2, "expert": 2, "tensor": 2}),
    (QUIET, {"pipeline": 2, "data": 2}),
    (QUIET, {"pipeline": 2, "shard": 2, "schedule": "zero_bubble"}),
    (QUIET, {"pipeline": 2, "data": 2, "expert": 2}),
    (QUIET, {"pipeline": 2, "tensor": 2, "schedule": "interleaved"}),
]


def sum_of_pieces() -> tuple[list[float], int, int]:
    """Return this rank's piece of a sum, the bytes it sent for that, and those of the whole."""
    given = torch.arange(1 << 16, dtype=torch.float32) * (1 + distributed.get_rank())
    world, group = distributed.get_world_size(), distributed.group.WORLD
    piece = torch.empty(len(given) // world)
    assert group is not None
    SumOfPieces()(piece, given, group, distributed.ReduceOp.SUM)
    before = sent()
    SumOfPieces()(piece, given, group, distributed.ReduceOp.SUM)
    distributed.barrier()
    return piece.tolist(), sent() - before, given.nbytes


def sent() -> int:
    """Return the bytes that this process sent over all its connections, as the kernel counts."""
    total = 0
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # the listing's own, or one that only listens
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                with socket.socket(fileno=os.dup(int(name))) as line:
                    line.getpeername()
                    told = line.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 208)
                    total += struct.unpack_from("Q", told, 200)[0]
    return total


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's count is read as Linux keeps it")
def test_pieces_of_a_sum_are_sent_once() -> None:
    found = run(2, sum_of_pieces)
    assert [*found[0][0], *found[1][0]] == [3.0 * n for n in range(1 << 16)]
    for _, bytes_sent, whole in found:  # and what surrounds them
        assert whole / 2 <= bytes_sent < whole / 2 + 4096


def _documents(path: Path) -> str:
    """Write documents of 3 to 12 letters, of which one or two fill a row and leave some."""
    texts = (("three" * 3)[: 3 + 7 * n % 10] for n in range(300))
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def _told(each: dict[str, Any]) -> str:
    return "×".join(f"{k}{v}" for k, v in each.items() if not isinstance(v, dict)) or "run"


@pytest.mark.parametrize(
    ("changes", "layout"),
    [*TWO, *(pytest.param(*each, marks=pytest.mark.distributed) for each in MORE)],
    ids=_told,
)
def test_several_processes_train_as_one(source, tmp_path, changes, layout):
    axes = ("data", "shard", "tensor", "pipeline")
    world = math.prod(layout.get(axis, 1) for axis in axes)
    if changes is PADDED:
        source = _documents(tmp_path / "documents.jsonl")
    alone = trained(settings(source, changes), str(tmp_path / "one"))
    several = settings(source, changes, {"parallel": layout})
    together = run(world, trained, several, str(tmp_path / "two"))[0]
    for name in ("losses", "norms", "valid"):
        assert together[name] == pytest.approx(alone[name], rel=1e-5)
    assert len(alone["losses"]) == 6
    assert _counted(together["loads"]) == _counted(alone["loads"])
    assert together["samples"] == alone["samples"]
    for here, there in zip(alone["auxiliary"], together["auxiliary"], strict=True):
        assert there == pytest.approx(here, rel=1e-5)
    assert len(alone["parts"]) == len(together["parts"]) > 0
    for here, there in zip(alone["parts"], together["parts"], strict=True):
        for one, two in zip(here, there, strict=True):
            assert (two.part, two.parameters) == (one.part, one.parameters)
            for name in ("gradient_norm", "weight_norm", "update_norm"):
                found = getattr(two, name)
                assert found == pytest.approx(getattr(one, name), rel=1e-4), (one.part, name)


def _counted(loads: list[Any]) -> list[Any]:
    return [(each.layer, each.load, each.dropped) for step in loads for each in step]
