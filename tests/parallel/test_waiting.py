"""Each process tells how long it waits, the slow one is named, and so is one that says nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
from torch import distributed, nn

from coterie.foundation.event_log import read_events
from coterie.foundation.runs import RunDirectory
from coterie.model.blocks import Block
from coterie.parallel import health
from coterie.parallel.health import Health
from coterie.parallel.waiting import straggler
from coterie.train import RunSettings
from coterie.train.events import RanksMeasured
from coterie.visualise.report import write_report

from .conftest import source  # noqa: F401 - a fixture
from .processes import run
from .runs import settings, trained


@contextlib.contextmanager
def slowed() -> Iterator[None]:
    """Let each layer of this process take longer."""

    def wait(module: nn.Module, *_: Any) -> None:
        if isinstance(module, Block) and module.training:
            time.sleep(0.2)

    hook = nn.modules.module.register_module_forward_pre_hook(wait)
    try:
        yield
    finally:
        hook.remove()


def one_is_slow(asked: RunSettings, path: str) -> None:
    with slowed() if distributed.get_rank() == 1 else contextlib.nullcontext():
        trained(asked, path)


def test_the_process_that_others_wait_for_is_named(source, tmp_path):  # noqa: F811
    asked = settings(source, {"parallel": {"shard": 2}, "train": {"load_every": 3}})
    run(2, one_is_slow, asked, str(tmp_path / "two"))
    found = [event for event in read_events(tmp_path / "two/events.jsonl")
             if isinstance(event, RanksMeasured)]  # fmt: skip
    assert [(event.step, event.steps) for event in found] == [(3, 3), (6, 3)]
    for event in found:
        first, second = event.ranks
        assert (first.rank, second.rank, event.straggler) == (0, 1, 1)
        assert first.waiting > 0.4
        assert min(first.seconds, second.seconds) > 0.4
        assert first.memory_bytes > 1e7
    page = write_report(RunDirectory(tmp_path / "two")).read_text()
    assert "rank 1 (waited for)" in page
    assert "rank 0 (waited for)" not in page


@pytest.mark.parametrize(
    ("shares", "found"),
    [
        ((0.6, 0.1, 0.5), 1), ((0.5, 0.4), None), ((0.6, 0.1, 0.2), None), ((0.9, None), None),
        ((0.3,), None),
    ],
)  # fmt: skip
def test_a_straggler_waits_much_less_than_all_others(shares, found):
    assert straggler(shares) == found


def test_a_process_that_gives_no_sign_is_named_once(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(health.time, "monotonic", lambda: now[0])
    store = distributed.HashStore()
    first, second = Health(store, 0, 2), Health(store, 1, 2)

    def after(seconds: float, *living: Health) -> list[str]:
        now[0] += seconds
        for each in living:
            each.beat()
        return first.silent(20)

    second.at("step 12")
    assert [after(5, first, second) for _ in range(3)] == [[]] * 3
    told = [after(5, first) for _ in range(6)]
    said = ["Nothing was heard of rank 1 for 20 s (last at step 12)."]
    assert told == [[], [], [], said, [], []]
    assert after(5, first, second) == []  # it is heard again
    assert [after(60, first), after(5, first)] == [[], []]  # this process itself stood still
    second.beat(leaving=True)
    assert [after(5, first) for _ in range(6)] == [[]] * 6
