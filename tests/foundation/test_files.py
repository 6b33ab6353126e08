"""Atomic writes: whole or not there, whatever happens."""

from __future__ import annotations

import errno
import os

import pytest

from coterie.foundation import files, swap
from coterie.foundation.errors import UserError


def left_behind(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_a_file_is_written_whole_and_replaced(tmp_path):
    path = tmp_path / "deep" / "a.json"
    files.write_json_atomic(path, {"a": 1})
    files.write_json_atomic(path, {"a": 2})
    assert path.read_text() == '{\n  "a": 2\n}\n'
    assert left_behind(path.parent) == []


def test_a_full_disk_is_told_and_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    files.write_text_atomic(path, "old")

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="disk is full"):
        files.write_text_atomic(path, "new")
    assert path.read_text() == "old"
    assert left_behind(tmp_path) == []


def test_a_directory_appears_only_when_it_is_whole(tmp_path):
    with files.atomic_directory(tmp_path / "store") as partial:
        (partial / "x").write_text("1")
        assert not (tmp_path / "store").exists()
    assert (tmp_path / "store" / "x").read_text() == "1"
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_directory_leaves_nothing(tmp_path, failure):
    with pytest.raises(failure), files.atomic_directory(tmp_path / "store") as partial:
        (partial / "x").write_text("1")
        raise failure
    assert list(tmp_path.iterdir()) == []


def test_an_existing_directory_is_replaced_only_on_request(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "old").write_text("1")
    with (
        pytest.raises(UserError, match="exists already"),
        files.atomic_directory(tmp_path / "store"),
    ):
        pass
    with files.atomic_directory(tmp_path / "store", replace=True) as partial:
        (partial / "new").write_text("2")
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["new"]
    assert left_behind(tmp_path) == []


def test_a_directory_that_cannot_be_swapped_in_leaves_the_old_one(tmp_path, monkeypatch):
    monkeypatch.setattr(swap, "_rename", lambda *_: False)  # no exchange in one step
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "old").write_text("1")
    rename = os.rename

    def refuse(source, target):
        if ".new-" in str(source):
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    with (
        pytest.raises(UserError, match="disk is full"),
        files.atomic_directory(tmp_path / "store", replace=True) as partial,
    ):
        (partial / "new").write_text("2")
    assert (tmp_path / "store" / "old").read_text() == "1"
    assert left_behind(tmp_path) == []


def test_permission_is_explained(tmp_path, monkeypatch):
    def refuse(*_arguments, **_options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files, "_begin", refuse)
    with pytest.raises(UserError, match="No permission"):
        files.write_text_atomic(tmp_path / "a", "x")


def test_checksums_agree(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sha256_file(tmp_path / "a") == files.sha256_bytes(b"abc") == expected
