"""Where one of several processes has no memory for a step, all of them cut it, and lose nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import distributed, nn

from coterie.foundation.event_log import read_events
from coterie.foundation.runs import RunDirectory
from coterie.model.experts import MixtureOfExpertsPart
from coterie.parallel.ranks import OtherRankError
from coterie.train import RunSettings
from coterie.train.events import MicroBatchChanged, RunEnded
from coterie.train.step import NoRoomError

from ..parallel.conftest import source  # noqa: F401 - a fixture
from ..parallel.processes import run
from ..parallel.runs import settings, trained

EVERYTHING: dict[str, Any] = {
    "train": {
        "optimizer": {"kind": "muon"}, "ema": 0.9, "clip": {"kind": "adaptive"},
        "save_in_background": True, "checkpoint_every": 2,
    },
}  # fmt: skip


@contextlib.contextmanager
def room_for(rows: int, backward: bool) -> Iterator[None]:
    """Let experts of the second rank find no memory for more rows, from the third batch on."""
    passes = 0

    def refuse(*_: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 B")

    def look(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal passes
        if isinstance(module, MixtureOfExpertsPart) and module.training:
            passes += 1
            if passes > 2 and args[0].shape[0] > rows:
                args[0].register_hook(refuse) if backward else refuse()

    hook = nn.modules.module.register_module_forward_hook(look)
    try:
        yield
    finally:
        hook.remove()


def crowded(asked: RunSettings, path: str, rows: int, backward: bool) -> dict[str, Any]:
    second = distributed.get_rank() == 1
    with room_for(rows, backward) if second else contextlib.nullcontext():
        try:
            return trained(asked, path)
        except (NoRoomError, OtherRankError) as error:
            return {"error": error.message}


@pytest.mark.parametrize(
    ("layout", "backward"), [({"shard": 2}, True), ({"data": 2}, False)], ids=["shards", "replicas"]
)
def test_a_step_that_one_has_no_room_for_is_cut_by_all(source, tmp_path, layout, backward):  # noqa: F811
    alone = trained(settings(source, EVERYTHING), str(tmp_path / "one"))
    asked = settings(source, EVERYTHING, {"parallel": layout})
    found = run(2, crowded, asked, str(tmp_path / "two"), 1, backward)[0]
    for name in ("losses", "norms", "valid"):
        assert found[name] == pytest.approx(alone[name], rel=1e-5)
    assert len(found["losses"]) == 6
    changes = [e for e in events(tmp_path / "two") if isinstance(e, MicroBatchChanged)]
    assert [(each.step, each.pieces, each.rows) for each in changes] == [(3, 4, 1)]


@pytest.mark.distributed
def test_draws_are_those_of_the_step_wherever_it_broke_off(source, tmp_path):  # noqa: F811
    asked = settings(source, EVERYTHING, {"model": {"dropout": 0.2}, "parallel": {"shard": 2}})
    one, other = (
        run(2, crowded, asked, str(tmp_path / str(late)), 1, late)[0] for late in (False, True)
    )
    assert one["losses"] == other["losses"]


def test_where_no_single_row_fits_all_end_with_the_same_words(source, tmp_path):  # noqa: F811
    asked = settings(source, {"parallel": {"shard": 2}})
    for found in run(2, crowded, asked, str(tmp_path / "run"), 0, False):
        assert found["error"].startswith("Not even one row of a batch fits into memory")
    ended = [each for each in events(tmp_path / "run") if isinstance(each, RunEnded)]
    assert ended[0].status == "failed"


def events(path: Path) -> list[Any]:
    return list(read_events(RunDirectory(path).events))
