"""Run directories: made once, found by name, `latest` or path."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coterie.foundation.errors import RunError
from coterie.foundation.runs import (
    RunDirectory,
    cache_root,
    find_run,
    fresh_name,
    list_runs,
    runs_root,
)  # fmt: skip


def make(name: str, when: int) -> RunDirectory:
    run = RunDirectory.create(runs_root(), name)
    run.write_config("seed: 1\n")
    os.utime(run.config, (when, when))
    return run


def test_runs_are_found_by_name_latest_and_path():
    first, second = make("first", 200), make("second", 100)
    assert [run.name for run in list_runs()] == ["second", "first"]
    assert find_run("second") == second
    assert find_run("latest") == first
    assert find_run(str(first.path)).path == first.path


def test_latest_is_the_run_that_was_active_last():
    make("old", 300)
    active = make("active", 100)
    active.events.write_text("")
    os.utime(active.events, (900, 900))
    assert find_run("latest") == active


def test_unknown_runs_are_refused_with_the_nearest():
    with pytest.raises(RunError, match="no runs were found"):
        find_run("latest")
    make("shakespeare", 1)
    with pytest.raises(RunError, match="did you mean “shakespeare”"):
        find_run("shakespear")


@pytest.mark.parametrize("name", ["", "latest", "../up", "a b", ".hidden", "a/b"])
def test_unusable_names_are_refused(name):
    with pytest.raises(RunError, match="cannot name a run"):
        RunDirectory.create(runs_root(), name)


def test_a_taken_name_is_refused_and_nothing_is_lost():
    run = make("taken", 1)
    with pytest.raises(RunError, match="already") as caught:
        RunDirectory.create(runs_root(), "taken")
    assert "--resume taken" in caught.value.hint
    assert run.config.read_text() == "seed: 1\n"
    assert fresh_name("taken") == "taken-2"
    assert fresh_name("free") == "free"


def test_places_follow_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("COTERIE_RUNS")
    monkeypatch.delenv("COTERIE_CACHE")
    assert runs_root() == Path("runs")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root() == tmp_path / "coterie"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path.home() / ".cache" / "coterie"
