"""A run is stopped as Ctrl-C would and resumed in a process of its own, where that was allowed."""

import os
import socket
import stat
import sys
import time

import pytest
from starlette.testclient import TestClient

from coterie.foundation.errors import UserError
from coterie.foundation.locks import Owner, owner_of
from coterie.visualise.web import control
from coterie.visualise.web.runs import Board
from coterie.visualise.web.server import make_app
from coterie.visualise.web.studio import Studio

HOST = "127.0.0.1:8765"


@pytest.fixture
def python(tmp_path, monkeypatch):
    """Let a script stand for python."""

    def be(script):
        file = tmp_path / "python"
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(sys, "executable", str(file))

    return be


def client(run, *, allowed, token="a-secret"):
    app = make_app(Studio(), Board(lambda: [run], control=allowed), [HOST], "a-secret")
    return TestClient(app, base_url=f"http://{HOST}", headers={"authorization": f"Bearer {token}"})


def test_a_run_ends_by_itself_when_it_is_asked(run, trained):
    server = client(run, allowed=True)
    assert server.get("/api/runs").json()[0]["owned"] is True
    told = server.post("/api/runs/mine/stop").json()
    assert "with a checkpoint" in told["done"]
    assert trained.communicate(timeout=30)[0] == "a checkpoint\n"
    assert trained.returncode == 0
    assert server.get("/api/runs").json()[0]["owned"] is False
    again = server.post("/api/runs/mine/stop")
    assert (again.status_code, "Nobody trains mine" in again.json()["problem"]) == (422, True)


def test_nothing_is_done_unless_it_was_allowed_and_the_page_asks(run, trained, python):
    python("touch was-run")
    locked = client(run, allowed=False)
    assert locked.get("/api/state").json()["control"] is False
    for what in ("stop", "resume"):
        answer = locked.post(f"/api/runs/mine/{what}")
        assert (answer.status_code, "only looked at" in answer.json()["problem"]) == (422, True)
    server = client(run, allowed=True)
    assert server.get("/api/state").json()["control"] is True
    where, stranger = "/api/runs/mine/stop", client(run, allowed=True, token="wrong")
    assert stranger.post(where).status_code == 401
    for headers in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}):
        assert server.post(where, headers=headers).status_code == 403
    assert server.post(where, headers={"host": "evil.example"}).status_code == 421
    assert server.get(where).status_code == 405
    assert server.post("/api/runs/mine/remove").status_code == 422
    assert server.post("/api/runs/..%2fmine/stop").status_code == 404
    assert server.post("/api/runs/other/stop").status_code == 422
    time.sleep(0.2)
    assert trained.poll() is None
    assert owner_of(run.path) is not None


def test_only_what_trains_here_is_asked(run, monkeypatch):
    for host, what in (("elsewhere", "training"), (socket.gethostname(), "converting")):
        owner = Owner(2**22 + 1, host, "now", what)  # a process that cannot be
        monkeypatch.setattr(control, "owner_of", lambda path, owner=owner: owner)
        with pytest.raises(UserError, match="not to be stopped from here"):
            control.stop(run)
        with pytest.raises(UserError, match="has an owner already"):
            control.resume(run)


def test_resuming_starts_a_process_that_stays(run, python, tmp_path, monkeypatch):
    monkeypatch.setattr(control, "_FRESH", 0.5)
    python(f'echo "$@"; ps -o sid= -p $$; sleep 1; echo done > {tmp_path / "done"}')
    assert "was resumed by process" in control.resume(run)
    words, session = (run.path / "resumed.log").read_text().splitlines()
    assert words == f"-m coterie train --resume {run.path}"
    assert int(session) != os.getsid(0)  # it does not end with the server's terminal
    for _ in range(200):
        if (tmp_path / "done").exists():
            break
        time.sleep(0.05)
    assert (tmp_path / "done").read_text() == "done\n"


def test_what_could_not_be_resumed_says_why(run, python):
    python("echo no sound checkpoint >&2; exit 3")
    with pytest.raises(UserError, match="could not be resumed: no sound checkpoint"):
        control.resume(run)
