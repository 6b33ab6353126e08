"""A divided run is saved in parts and goes on from them, in as many processes or in others."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from coterie.checkpoint import find_problem, load_checkpoint
from coterie.foundation.event_log import read_events
from coterie.foundation.runs import RunDirectory
from coterie.train.events import StepDone

from ..parallel.conftest import source  # noqa: F401 - a fixture
from ..parallel.processes import run
from ..parallel.runs import settings, trained

EVERYTHING: dict[str, Any] = {
    "model": {"dropout": 0.1},
    "train": {
        "optimizer": {"kind": "muon"}, "ema": 0.9, "clip": {"kind": "adaptive"},
        "save_in_background": True, "checkpoint_every": 3, "keep": 9,
    },
}  # fmt: skip


def begun(path: Path, step: int, target: Path) -> str:
    """Return a copy of a run as it was when a step was saved; its record may say more."""
    shutil.copytree(path, target)
    for each in (target / "checkpoints").iterdir():
        if each.name > f"step-{step:08d}":
            shutil.rmtree(each)
    return str(target)


def tensors(path: Path) -> dict[str, torch.Tensor]:
    newest = sorted((path / "checkpoints").iterdir())[-1]
    assert find_problem(newest) is None
    found = load_checkpoint(newest)
    return {**found.model, **found.optimizer}


def losses(path: Path) -> dict[int, float]:
    events = read_events(RunDirectory(path).events)
    return {each.step: each.loss for each in events if isinstance(each, StepDone)}


@pytest.mark.parametrize(
    "layout", [{"shard": 2}, {"data": 2, "expert": 2}, {"tensor": 2}, {"pipeline": 2}], ids=str
)
def test_a_divided_run_goes_on_from_its_parts(source, tmp_path, layout):  # noqa: F811
    stages = layout.get("pipeline", 1)  # which draw by themselves
    changes = {
        "train": {"gradient_accumulation": 2},
        "model": {"dropout": 0.1 if stages == 1 else 0.0},
    }
    asked = settings(source, EVERYTHING, changes, {"parallel": layout})
    whole = tmp_path / "whole"
    run(2, trained, asked, str(whole))
    assert len(list((whole / "checkpoints" / "step-00000003" / "model").iterdir())) == 2
    expected, told = tensors(whole), losses(whole)
    run(2, trained, asked, begun(whole, 3, tmp_path / "again"), True)
    found = tensors(tmp_path / "again")
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name
    assert losses(tmp_path / "again") == told
    one = asked.model_copy(update={"parallel": None})
    trained(one, begun(whole, 3, tmp_path / "alone"), True)
    assert losses(tmp_path / "alone") == pytest.approx(told, rel=1e-5)
    for name, tensor in tensors(tmp_path / "alone").items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-4)
    run(2, trained, settings(source, EVERYTHING, changes, {"parallel": {"data": 2}}),
        begun(tmp_path / "alone", 6, tmp_path / "more"), True)  # fmt: skip
