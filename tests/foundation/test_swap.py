"""A kill between any two system calls of a replacement leaves the old or the new, or mends."""

from __future__ import annotations

import subprocess
import sys

import pytest

from coterie.foundation import swap
from coterie.foundation.files import atomic_directory, write_text_atomic
from coterie.foundation.locks import own, sibling

KILLED_EVERYWHERE = """
import logging, os, sys
from pathlib import Path
from coterie.foundation import files, swap

exchange, root, told, moment = sys.argv[1] == "True", Path(sys.argv[2]), [], 0
logging.getLogger("coterie").addFilter(lambda record: told.append(record.getMessage()))
real = swap._rename if exchange else lambda *_: False

def dying(call):
    def wrapper(*arguments, **options):
        global moment
        if moment == 0:
            os.kill(os.getpid(), 9)
        moment -= 1
        return call(*arguments, **options)
    return wrapper

def replace(path):
    for name in ("mkdir", "rename", "rmdir", "unlink", "open", "fsync", "chmod"):
        setattr(os, name, dying(getattr(os, name)))
    swap._rename = dying(real)
    with files.atomic_directory(path, replace=True) as partial:
        for name in ("one", "two"):
            (partial / name).write_text("new")

swap._rename, seen, first, killed = real, set(), 0, True
while killed:
    path = root / str(first) / "store"
    path.mkdir(parents=True)
    for name in ("one", "two"):
        (path / name).write_text("old")
    if (child := os.fork()) == 0:
        moment = first
        replace(path)
        os._exit(0)
    killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
    assert path.is_dir() or not exchange, first
    if not path.is_dir():
        told.clear()
        swap.restore(path)
        assert "was killed while replacing it" in told[0], (first, told)
    content = {(path / name).read_text() for name in os.listdir(path)}
    assert content in ({"old"}, {"new"}) and len(os.listdir(path)) == 2, first
    seen |= content
    with files.atomic_directory(path, replace=True):
        pass
    assert os.listdir(path.parent) == ["store"], (first, os.listdir(path.parent))
    first += 1
assert seen == {"old", "new"} and first > 10
"""


@pytest.mark.parametrize("exchange", [True, False])
def test_killed_at_every_call_of_a_replacement(tmp_path, exchange):
    """Also where the system cannot exchange two directories in one step."""
    command = [sys.executable, "-c", KILLED_EVERYWHERE, str(exchange), str(tmp_path)]
    result = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 0, result.stderr


def test_what_an_earlier_version_moved_aside_is_put_back_and_told(tmp_path, caplog):
    (tmp_path / ".store.old-ab_1x" / "content").mkdir(parents=True)
    (tmp_path / ".store.old-ab_1x" / "content" / "a").write_text("old")
    (tmp_path / ".store.partial-zz").mkdir()
    swap.restore(tmp_path / "store")
    assert (tmp_path / "store" / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert "the old one is back" in caplog.text


def test_sweeping_leaves_what_is_being_written(tmp_path):
    (tmp_path / ".dead.partial-1").mkdir()
    (tmp_path / ".alive.partial-2").mkdir()
    (tmp_path / "mine").mkdir()
    with own(tmp_path / "alive", "writing"):
        swap.sweep(tmp_path)
        assert (tmp_path / ".alive.partial-2").is_dir()
    assert not (tmp_path / ".dead.partial-1").exists()
    assert (tmp_path / "mine").is_dir()


def test_half_written_files_of_the_dead_are_removed_and_of_the_living_kept(tmp_path):
    import fcntl

    dead, alive = (sibling(tmp_path / "page", f"partial-{n}") for n in (1, 2))
    other = sibling(tmp_path / "page.partial-3", "partial-4")
    for path in (dead, alive, other):
        path.write_text("half")
    with open(alive, "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write_text_atomic(tmp_path / "page", "whole")
    assert sorted(tmp_path.iterdir()) == sorted([alive, other, tmp_path / "page"])


def test_links_to_directories_are_followed(tmp_path):
    (tmp_path / "link").symlink_to("real")
    for text in ("1", "2"):
        with atomic_directory(tmp_path / "link", replace=True) as partial:
            (partial / "x").write_text(text)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real" / "x").read_text() == text
