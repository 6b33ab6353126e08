"""One owner for what is written; the lock dies with it, on every kind of file system."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from coterie.foundation import locks
from coterie.foundation.errors import UserError
from coterie.foundation.locks import OwnedError, held, own, own_unless_held, owner_of, sibling

OWNER = """
import sys, time, os
from coterie.foundation.locks import own
with own(sys.argv[1], "training"):
    {inside}
"""


@contextlib.contextmanager
def other_process(path, inside="print('ready', flush=True); time.sleep(60)"):
    """Run an owner in a process of its own; yield it once it owns the path."""
    command = [sys.executable, "-c", OWNER.format(inside=inside), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(locks, "_PATIENCE", 0.05)


def test_the_second_is_told_who_the_first_is(tmp_path):
    place = tmp_path / "deep" / "run"
    with other_process(place) as first:
        with pytest.raises(OwnedError) as caught, own(place, "import"):
            pass
        message = caught.value.message
        assert f"process {first.pid} on {socket.gethostname()}, since 2" in message
        assert "training" in message
        assert "choose another" in caught.value.hint
        assert owner_of(place).pid == first.pid
    assert owner_of(place) is None


def test_the_lock_dies_with_its_process_and_leaves_nothing(tmp_path):
    with other_process(tmp_path / "run") as first:
        first.send_signal(signal.SIGKILL)
        first.wait()
        with own(tmp_path / "run", "training"):
            assert held(tmp_path / "run")
    assert not held(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_child_of_the_owner_does_not_keep_the_lock(tmp_path):
    inside = "if os.fork(): print('ready', flush=True)\n    time.sleep(60)"
    with other_process(tmp_path / "run", inside) as first:
        first.kill()
        first.wait()
        with own(tmp_path / "run", "training"):
            assert owner_of(tmp_path / "run").pid == os.getpid()


def test_a_child_that_leaves_the_block_frees_nothing(tmp_path):
    inside = (
        "child = os.fork()\n    if child: os.waitpid(child, 0); print('ready', flush=True); "
        "time.sleep(60)"
    )
    with (
        other_process(tmp_path / "run", inside),
        pytest.raises(OwnedError),
        own(tmp_path / "run", "training"),
    ):
        pass


def test_threads_of_one_process_are_refused_too(tmp_path):
    refused = []

    def second():
        try:
            with own_unless_held(tmp_path / "run", "training"):
                pass
        except OwnedError as error:
            refused.append(error)

    with own(tmp_path / "run", "training"):
        with own_unless_held(tmp_path / "run", "saving"):
            pass
        with pytest.raises(OwnedError, match="this very process"), own(tmp_path / "run", "again"):
            pass
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert "this very process" in refused[0].message


def test_two_names_of_one_place_have_one_owner(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with (
        own(tmp_path / "run", "training"),
        pytest.raises(OwnedError, match="link is being written"),
        own(tmp_path / "link", "training"),
    ):
        pass


def test_waiting_ends_when_the_owner_does(tmp_path):
    told = []
    inside = "print('ready', flush=True); sys.stdin.readline()"
    command = [sys.executable, "-c", OWNER.format(inside=inside), str(tmp_path / "run")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    ) as first:
        first.stdout.readline()

        def notify(message):
            told.append(message)
            first.stdin.write("\n")
            first.stdin.flush()

        with own(tmp_path / "run", "waiting", wait=True, notify=notify):
            pass
        pid = first.pid
    assert len(told) == 1
    assert f"Waiting for process {pid}" in told[0]


def test_a_lock_on_a_file_that_its_owner_has_just_removed_counts_for_nothing(tmp_path, monkeypatch):
    """Between opening and locking the owner leaves, and a third comes and makes the file anew."""
    real, third = locks._open, []

    def slow(file):
        descriptor = real(file)
        if not third:
            file.unlink()
            third.append(real(file))
            locks.fcntl.flock(third[0], locks.fcntl.LOCK_EX)
        return descriptor

    monkeypatch.setattr(locks, "_open", slow)
    with pytest.raises(OwnedError), own(tmp_path / "run", "training"):
        pass
    os.close(third[0])


CONTENDER = """
import sys, time
from pathlib import Path
from coterie.foundation import locks
counter, rounds = Path(sys.argv[1]), int(sys.argv[2])
for _ in range(rounds):
    with locks.own(counter, "counting", wait=True):
        number = int(counter.read_text())
        time.sleep(0.0002)
        counter.write_text(str(number + 1))
"""


def test_nobody_holds_a_lock_that_others_do_not_see(tmp_path):
    """Lock files come and go under four contenders, and no increment is lost."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    command = [sys.executable, "-c", CONTENDER, str(counter), "20"]
    contenders = [subprocess.Popen(command) for _ in range(4)]
    assert [contender.wait() for contender in contenders] == [0] * 4
    assert counter.read_text() == "80"
    assert list(tmp_path.iterdir()) == [counter]


@pytest.fixture
def no_locks_beside(monkeypatch, tmp_path):
    """A file system without locks under `tmp_path / "far"`; the local one, for locks, has them."""
    real = locks.fcntl.flock
    (tmp_path / "far").mkdir()
    (tmp_path / "local").mkdir()
    monkeypatch.setattr(locks.tempfile, "gettempdir", lambda: str(tmp_path / "local"))

    def flock(descriptor, operation):
        if "/far/" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOLCK, "No locks available")
        real(descriptor, operation)

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    return tmp_path / "far" / "run"


def test_without_locks_there_the_local_disk_has_them_and_a_claim_stands(no_locks_beside):
    place = no_locks_beside
    with own(place, "training"):
        assert json.loads(sibling(place, "claim").read_text())["pid"] == os.getpid()
        with pytest.raises(OwnedError, match="this very process"), own(place, "training"):
            pass
    assert not sibling(place, "claim").exists()
    with own(place, "training"):
        pass


def test_a_dead_claim_of_this_host_is_taken_and_one_of_another_is_respected(no_locks_beside):
    place = no_locks_beside
    record = {"pid": 4, "host": socket.gethostname(), "since": "yesterday", "what": "training"}
    sibling(place, "claim").write_text(json.dumps(record))
    with own(place, "training"):
        pass
    sibling(place, "claim").write_text(json.dumps(record | {"host": "elsewhere"}))
    with pytest.raises(OwnedError, match="process 4 on elsewhere") as caught, own(place, "x"):
        pass
    assert "remove the file" in caught.value.hint
    assert sibling(place, "claim").exists()


def test_where_no_file_may_be_made_the_local_disk_has_the_lock(monkeypatch, tmp_path):
    real = os.open
    (tmp_path / "local").mkdir()
    monkeypatch.setattr(locks.tempfile, "gettempdir", lambda: str(tmp_path / "local"))

    def read_only(path, *arguments, **options):
        if str(path).endswith(".run.lock"):
            raise OSError(errno.EROFS, "Read-only file system")
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", read_only)
    with (
        own(tmp_path / "run", "training"),
        pytest.raises(OwnedError),
        own(tmp_path / "run", "training"),
    ):
        pass
    assert list((tmp_path / "local").iterdir()) == []


@pytest.mark.parametrize("record", [b"", b"[]", b"{", b'{"pid": "x"}', b"[" * 4096, b"\xff"])
def test_a_record_that_says_nothing_is_survived(tmp_path, record):
    with other_process(tmp_path / "run"):
        sibling(tmp_path / "run", "lock").write_bytes(record)
        with pytest.raises(OwnedError, match="another process"), own(tmp_path / "run", "x"):
            pass


def test_a_record_cannot_speak_to_the_terminal(tmp_path):
    record = {"pid": 1, "host": "\x1b[2J", "since": "\u202e", "what": "y\n"}
    with other_process(tmp_path / "run"):
        sibling(tmp_path / "run", "lock").write_text(json.dumps(record))
        with pytest.raises(OwnedError) as caught, own(tmp_path / "run", "x"):
            pass
    assert "\x1b" not in caught.value.message
    assert "\u202e" not in caught.value.message


def test_places_that_cannot_be_written_are_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write"), own(tmp_path / "file" / "run", "x"):
        pass
    with own(tmp_path / ("n" * 255), "x"):
        assert held(tmp_path / ("n" * 255))


def test_a_pipe_in_place_of_the_lock_is_refused(tmp_path):
    os.mkfifo(sibling(tmp_path / "run", "lock"))
    with pytest.raises(UserError, match="no regular file"), own(tmp_path / "run", "x"):
        pass


def test_a_foreign_lock_file_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("mine")
    sibling(tmp_path / "run", "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(UserError, match="Cannot write"), own(tmp_path / "run", "x"):
        pass
    assert (tmp_path / "precious").read_text() == "mine"
