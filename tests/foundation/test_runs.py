"""Run directories: made once, found by name, `latest` or path."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from coterie.foundation.errors import RunError
from coterie.foundation.locks import OwnedError, held, own
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


def in_a_thread(call):
    """Return what a call in another thread, which owns nothing, returns or raises."""
    with ThreadPoolExecutor(1) as pool:
        try:
            return pool.submit(call).result()
        except Exception as error:
            return error


def test_a_run_has_one_owner():
    run = RunDirectory(runs_root() / "mine")
    with run.owned("training", new=True):
        assert held(run.path)
        run.write_config("seed: 1\n")
        for intruder in (
            lambda: RunDirectory.create(runs_root(), "mine"),
            lambda: run.owned("training", new=False).__enter__(),
        ):
            error = in_a_thread(intruder)
            assert isinstance(error, OwnedError), error
            assert f"process {os.getpid()}" in error.message or "this very process" in error.message
            assert "choose another --name" in error.hint
    with pytest.raises(RunError, match="a run “mine” already"), run.owned("training", new=True):
        pass
    with run.owned("training", new=False):
        assert run.checkpoints.is_dir()


def test_refused_names_leave_no_directory():
    with own(runs_root() / "theirs", "importing"):
        assert isinstance(
            in_a_thread(lambda: RunDirectory.create(runs_root(), "theirs")), OwnedError
        )
    assert not (runs_root() / "theirs").exists()


def test_each_of_many_gets_a_fresh_name_of_its_own():
    with own(runs_root() / "base-3", "importing"), ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda _: RunDirectory.create_fresh(runs_root(), "base"), range(6)))
    names = {run.name for run in made}
    assert len(names) == 6
    assert names.isdisjoint({"base-3"})
    assert {"base", "base-2", "base-4"} <= names


def test_half_written_runs_are_neither_listed_nor_the_latest():
    make("whole", 100)
    partial = runs_root() / ".theirs.partial-ab12"
    partial.mkdir()
    (partial / "config.yaml").write_text("seed: 1\n")
    assert [run.name for run in list_runs()] == ["whole"]
    assert find_run("latest").name == "whole"


def test_what_a_kill_left_in_a_run_is_swept_by_its_next_owner_and_put_back_for_readers():
    run = make("mine", 1)
    aside = run.checkpoints / ".step-00000002.old-ab" / "content"
    aside.mkdir(parents=True)
    half = run.checkpoints / ".step-00000003.partial-cd"
    half.mkdir()
    (run.path / ".config.yaml.partial-ef").write_text("half")
    (run.checkpoints / ".step-00000003.lock").write_text("{}")
    find_run("mine")
    assert (run.checkpoints / "step-00000002").is_dir()
    assert half.is_dir()  # a reader leaves alone what is not in its way
    with run.owned("training", new=False):
        pass
    left = [path.name for path in run.path.rglob(".*")]
    assert left == []
