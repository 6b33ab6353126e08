"""Stopping and resuming runs from the page, where whoever serves it has allowed that."""

import os
import signal
import socket
import subprocess
import sys
import threading

from coterie.foundation.errors import UserError
from coterie.foundation.locks import owner_of
from coterie.foundation.runs import RunDirectory

_LOG = "resumed.log"
_FRESH = 3  # seconds in which a process that was started must not end with an error


def stop(run: RunDirectory) -> str:
    """Ask a run to end after its step, with a checkpoint, as Ctrl-C does; return what was done.

    Raises:
        UserError: nobody trains it, or somebody who cannot be asked from here.
    """
    owner = owner_of(run.path)
    if owner is None:
        raise UserError(f"Nobody trains {run.name} now, so there is nothing to stop.")
    if owner.host != socket.gethostname() or owner.what != "training":
        raise UserError(f"{run.name} is not to be stopped from here: its owner is {owner}.")
    try:
        os.kill(owner.pid, signal.SIGINT)
    except OSError as error:
        raise UserError(f"Process {owner.pid} could not be asked: {error.strerror}.") from error
    return f"{run.name} was asked to end: it does after its present step, with a checkpoint."


def resume(run: RunDirectory) -> str:
    """Start `coterie train --resume` as a process of its own, which outlives the server.

    Raises:
        UserError: somebody trains it already, or it ended at once.
    """
    owner = owner_of(run.path)
    if owner is not None:
        raise UserError(f"{run.name} has an owner already: {owner}.")
    log = run.path / _LOG
    with open(log, "ab") as file:
        begun = subprocess.Popen(
            [sys.executable, "-m", "coterie", "train", "--resume", str(run.path.absolute())],
            stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
    try:
        code = begun.wait(_FRESH)
    except subprocess.TimeoutExpired:
        code = 0
        threading.Thread(target=begun.wait, daemon=True).start()  # whoever ends is taken leave of
    if code:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise UserError(f"{run.name} could not be resumed: {''.join(last)[:300]} (all: {log})")
    return f"{run.name} was resumed by process {begun.pid}; what it says is in {log}."
