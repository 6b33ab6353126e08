"""Outputs onto devices, pipes, links and what else a name may stand for."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
import sys
import threading

import pytest

from coterie.foundation.errors import UserError
from coterie.foundation.files import atomic_file, write_text_atomic
from coterie.foundation.places import find_place, is_taken


def hidden(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_a_device_stays_a_device(tmp_path):
    null = tmp_path / "null"
    try:
        os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        null.write_text("x")
    except OSError:
        pytest.skip("devices cannot be made here")
    write_text_atomic(null, "text")
    with atomic_file(null) as partial:
        partial.write_text("text")
    assert null.is_char_device()
    assert hidden(tmp_path) == []
    assert not is_taken(null)


def test_a_full_device_is_told():
    with pytest.raises(UserError, match="disk is full") as caught:
        write_text_atomic("/dev/full", "text")
    assert "half-written" not in caught.value.message


def test_a_pipe_is_written_to(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_text()))
    reader.start()
    while not got:  # until the reader has opened it
        with contextlib.suppress(UserError):
            write_text_atomic(tmp_path / "pipe", "text" * 50_000)
            reader.join()
    assert got == ["text" * 50_000]
    assert (tmp_path / "pipe").is_fifo()


def test_a_pipe_that_nobody_reads_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="Nobody reads the pipe"):
        write_text_atomic(tmp_path / "pipe", "text")


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
@pytest.mark.parametrize("into", ["pipe", "file"])
def test_standard_output_takes_it_in_order(tmp_path, name, into):
    (tmp_path / "link").symlink_to("/dev/stdout")
    script = (
        "import sys; from coterie.foundation.files import write_text_atomic\n"
        "print('one'); write_text_atomic(sys.argv[1], 'two\\n'); print('three')"
    )
    target = name if name != "link" else str(tmp_path / "link")
    with open(tmp_path / "out", "w") as file:
        output = file if into == "file" else subprocess.PIPE
        done = subprocess.run([sys.executable, "-c", script, target], stdout=output, text=True)
    assert done.returncode == 0
    text = (tmp_path / "out").read_text() if into == "file" else done.stdout
    assert text == "one\ntwo\nthree\n"


def test_links_are_followed_and_stay(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "link").symlink_to("deep/file")
    for text in ("made where a dangling link points", "replaced"):
        write_text_atomic(tmp_path / "link", text)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "deep" / "file").read_text() == text
    assert hidden(tmp_path / "deep") == []


def test_what_takes_no_file_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "to-folder").symlink_to("folder")
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        for name, word in [
            ("folder", "folder"),
            ("to-folder", "folder"),
            ("a", "symbolic links"),
            ("socket", "socket"),
            ("/proc/version/x", "Not a directory"),
            ("/proc/x", "Cannot write /proc/x|No permission"),
            ("a\0b", "cannot name a file"),
            ("n" * 300, "too long"),
        ]:
            with pytest.raises(UserError, match=word):
                write_text_atomic(name, "text")
    assert (tmp_path / "a").is_symlink()


def test_a_disk_is_refused(tmp_path):
    try:
        os.mknod(tmp_path / "disk", stat.S_IFBLK | 0o600, os.makedev(7, 250))
    except OSError:
        pytest.skip("devices cannot be made here")
    with pytest.raises(UserError, match="is a disk"):
        find_place(tmp_path / "disk")


def test_modes_follow_the_old_file_or_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_text_atomic(tmp_path / "new", "x")
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)
    (tmp_path / "new").chmod(0o604)
    write_text_atomic(tmp_path / "new", "y")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o604


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_owner_of_a_replaced_file_stays(tmp_path):
    (tmp_path / "theirs").write_text("x")
    os.chown(tmp_path / "theirs", 12, 34)
    write_text_atomic(tmp_path / "theirs", "y")
    status = (tmp_path / "theirs").stat()
    assert (status.st_uid, status.st_gid) == (12, 34)


def test_a_write_protected_file_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / "kept").write_text("x")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anything
    with pytest.raises(UserError, match="write-protected"):
        write_text_atomic(tmp_path / "kept", "y")


def test_a_file_that_appeared_meanwhile_is_not_replaced(tmp_path):
    with (
        pytest.raises(UserError, match="exists already"),
        atomic_file(tmp_path / "a", replace=False) as partial,
    ):
        partial.write_text("mine")
        (tmp_path / "a").write_text("theirs")
    assert (tmp_path / "a").read_text() == "theirs"
    assert hidden(tmp_path) == []
