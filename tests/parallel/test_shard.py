"""The same global batch, the same losses: replicas, shards and both, against one process."""

from __future__ import annotations

from typing import Any

import pytest

from .processes import run
from .runs import settings, trained

PLAIN: dict[str, Any] = {}
EVERYTHING: dict[str, Any] = {
    "train": {
        "optimizer": {"kind": "muon"}, "gradient_accumulation": 2, "sample_every": 3,
        "ema": 0.9, "health_every": 3,
    },
    "model": {
        "dropout": 0.1, "mtp": {"depth": 1},
        "feedforward": {
            "router": {"noise": {"kind": "gaussian"}}, "capacity_factor": 1.1,
            "balance": {"kind": "auxiliary"},
        },
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "layout"),
    [(PLAIN, {"data": 2}), (EVERYTHING, {"shard": 2}), (PLAIN, {"data": 2, "expert": 2})],
    ids=["replicas", "shards of everything", "experts"],
)
def test_two_processes_train_as_one(source, tmp_path, changes, layout):
    alone = trained(settings(source, changes), str(tmp_path / "one"))
    several = settings(source, changes, {"parallel": layout})
    together = run(2, trained, several, str(tmp_path / "two"))[0]
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
