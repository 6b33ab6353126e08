"""DeepSpeed's stages against one process: the same losses, and checkpoints that both read."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from coterie.checkpoint import list_checkpoints, load_checkpoint
from coterie.foundation.runs import RunDirectory

from .processes import run
from .runs import settings, trained

pytest.importorskip("deepspeed", reason='pip install "coterie[deepspeed]"')

PLAIN: dict[str, Any] = {}
EVERYTHING: dict[str, Any] = {
    "train": {
        "gradient_accumulation": 2, "sample_every": 3, "health_every": 3, "clip": {"max_norm": 0.5},
    },
    "model": {
        "dropout": 0.1, "mtp": {"depth": 1}, "head": {"tied": True},
        "feedforward": {
            "router": {"noise": {"kind": "gaussian"}}, "capacity_factor": 1.1,
            "balance": {"kind": "auxiliary"},
        },
    },
}  # fmt: skip
OFFLOADED = {"offload_optimizer": {"device": "cpu"}}
# DeepSpeed keeps small weights whole, and here all of them are.
DIVIDED = {"stage3_param_persistence_threshold": 0}
AWAY = {**OFFLOADED, **DIVIDED, "offload_param": {"device": "cpu"}}
AGAIN = {"train": {"activation_checkpointing": True}}
# Two packs of unlike experts of which each process uses one in most steps.
SELDOM = {
    "model": {
        "feedforward": {
            "experts_per_token": 1, "kernel": {"kind": "loop"},
            "experts": [
                {"mlp": {"kind": "gated", "width": 8}, "count": 1} for _ in range(6)
            ],
        },
    },
    "train": {"batch_size": 2},
}  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "changes", "more"),
    [
        pytest.param(2, EVERYTHING, {}, id="2 everything"),
        pytest.param(1, EVERYTHING, {}, id="1 everything", marks=pytest.mark.distributed),
        pytest.param(2, SELDOM, {}, id="2 seldom used", marks=pytest.mark.distributed),
        pytest.param(2, PLAIN, OFFLOADED, id="2 offloaded", marks=pytest.mark.distributed),
        pytest.param(3, SELDOM, DIVIDED, id="3 seldom used"),
        pytest.param(3, EVERYTHING, DIVIDED, id="3 everything", marks=pytest.mark.distributed),
        pytest.param(3, AGAIN, AWAY, id="3 offloaded", marks=pytest.mark.distributed),
    ],
)  # fmt: skip
def test_two_processes_train_as_one(source, tmp_path, stage, changes, more):
    alone = trained(settings(source, changes), str(tmp_path / "one"))
    asked = _divided(source, changes, {"stage": stage, **more})
    together = run(2, trained, asked, str(tmp_path / "two"))[0]
    for name in ("losses", "norms", "valid"):
        assert together[name] == pytest.approx(alone[name], rel=1e-5), name
    assert len(alone["losses"]) == 6
    assert together["samples"] == alone["samples"]
    for here, there in zip(alone["parts"], together["parts"], strict=True):
        for one, two in zip(here, there, strict=True):
            for name in ("gradient_norm", "weight_norm", "update_norm"):
                found = getattr(two, name)
                assert found == pytest.approx(getattr(one, name), rel=1e-4), (one.part, name)
    _same_checkpoint(tmp_path)
    # Each goes on with what the other saved.
    longer = {"train": {"steps": 8}}
    on = trained(settings(source, changes, longer), str(tmp_path / "two"), True)
    (tmp_path / "two").rename(tmp_path / "gone")
    (tmp_path / "one").rename(tmp_path / "two")
    again = run(2, trained, _divided(source, changes, {"stage": stage, **more}, longer),
                str(tmp_path / "two"), True)[0]  # fmt: skip
    assert again["losses"] == pytest.approx(on["losses"], rel=1e-5)


def _divided(source: str, changes: Any, zero: Any, *others: Any) -> Any:
    deepspeed = {"parallel": {"deepspeed": {"zero_optimization": zero}}}
    return settings(source, changes, deepspeed, *others)


def _same_checkpoint(tmp_path: Any) -> None:
    one, two = (
        load_checkpoint(list_checkpoints(RunDirectory(tmp_path / name).checkpoints)[-1])
        for name in ("one", "two")
    )
    for own, other in ((one.model, two.model), (one.optimizer, two.optimizer)):
        assert own.keys() == other.keys()
        for name, value in own.items():
            assert other[name].shape == value.shape, name
            torch.testing.assert_close(other[name], value, rtol=1e-3, atol=1e-4)
