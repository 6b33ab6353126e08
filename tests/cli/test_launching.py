"""How the processes of one command find each other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from coterie.cli.launching import together
from coterie.foundation.layers import dump_yaml
from coterie.foundation.runs import RunDirectory
from coterie.parallel import launch
from coterie.parallel.ranks import ALONE

from ..parallel.runs import settings


@pytest.mark.parametrize("new", [True, False])
def test_processes_wait_for_each_other_as_long_as_the_run_says(tmp_path, monkeypatch, new):
    waited = []

    @contextlib.contextmanager
    def joined(timeout: float, alone: bool) -> Iterator[object]:
        assert not alone
        waited.append(timeout)
        yield ALONE

    monkeypatch.setattr(launch, "joined", joined)
    monkeypatch.setenv("WORLD_SIZE", "2")
    asked = settings("text.txt", {"parallel": {"timeout": 7.0}})
    run = RunDirectory.create(tmp_path, "slow")
    run.write_config(dump_yaml(asked))
    with together(asked if new else None, str(run.path)):
        assert waited == [7.0]
