"""Runs of two processes that lose one or all of them, hang, meet a full disk or do not agree.

    python scripts/kills_distributed.py --rounds 20 --seed 1

Each round trains a little run in two processes, FSDP2 over both, lets something happen at a random
moment, goes on with two processes (or one) and compares the end with that of an undisturbed run:
weights, moments, averages and state to the last bit, or losses to 1e-5 where the number of
processes changed. In every other round the newest checkpoint is cut short besides. Prints a table;
exits with 1 if anything was otherwise.
"""

from __future__ import annotations

import datetime
import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from kills import ROUTED
from processes import SETTINGS, TEXT, Child, Tally, copy, enter, leftovers, options_of, room
from torch import distributed

from coterie.checkpoint import find_problem, load_checkpoint
from coterie.foundation.errors import CoterieError
from coterie.foundation.layers import Layer, load_settings
from coterie.foundation.runs import RunDirectory
from coterie.parallel.ranks import ALONE, Several
from coterie.train import RunSettings, train

MORE: dict[str, Any] = {
    "parallel": {"shard": 2},
    "train": {"ema": 0.9, "save_in_background": True, "optimizer": {"kind": "muon"}, "steps": 16},
}
WAIT = 4.0  # seconds after which a process that is waited for is lost, where one hangs
PATIENCE = 240.0  # seconds, on a busy machine


def settings(changes: dict[str, Any]) -> RunSettings:
    """Return the settings of the run."""
    texts = (yaml.safe_load(SETTINGS), yaml.safe_load(ROUTED), MORE, changes)
    return load_settings(RunSettings, [Layer(f"{n}", t) for n, t in enumerate(texts)]).settings


def work(
    rank: int, world: int, port: int, changes: dict[str, Any], resume: bool, wait: float
) -> int:
    """Train in this process, one of some; return its exit code."""
    ranks = ALONE
    if world > 1:
        store = distributed.TCPStore("127.0.0.1", port, is_master=False)
        distributed.init_process_group(
            "gloo", store=store, rank=rank, world_size=world,
            timeout=datetime.timedelta(seconds=wait),
        )  # fmt: skip
        ranks = Several(torch.device("cpu"))
    try:
        path = Path("runs/new")
        train(settings(changes), RunDirectory(path), preset="tiny", resume=resume, ranks=ranks)
    except CoterieError as error:
        print(error)
        return error.exit_code
    return 0


class Processes:
    """The processes of one training, forked from this one, which has imported everything."""

    def __init__(
        self,
        folder: Path,
        world: int = 2,
        resume: bool = False,
        wait: float = PATIENCE,
        changed: dict[int, dict[str, Any]] | None = None,
    ) -> None:
        self._store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self.folder, port = folder, self._store.port
        layout = {"parallel": {"timeout": wait} if world > 1 else None}
        self.children: list[Child] = []
        for rank in range(world):
            said = folder / f"said-{rank}.txt"
            changes = {**layout, **(changed or {}).get(rank, {})}
            pid = os.fork()
            if not pid:
                code = 70
                try:
                    enter(folder, said)
                    code = work(rank, world, port, changes, resume, wait)
                    sys.stdout.flush()
                finally:
                    os._exit(code)
            self.children.append(Child(pid, said, []))

    def wait(self, ranks: Sequence[int] | None = None) -> list[int]:
        """Return the exit codes; whoever takes too long is killed."""
        end = time.monotonic() + PATIENCE
        kept = [self.children[rank] for rank in ranks or range(len(self.children))]
        for child in kept:
            while child.code is None and time.monotonic() < end:
                pid, status = os.waitpid(child.pid, os.WNOHANG)
                if pid:
                    child.code = os.waitstatus_to_exitcode(status)
                time.sleep(0.01)
            if child.code is None:
                child.kill()
        return [child.wait() for child in kept]

    def said(self) -> str:
        """Return what all of them printed."""
        return "\n".join(child.said for child in self.children)

    def wait_for_steps(self) -> None:
        """Wait until the first step was begun."""
        record, end = self.folder / "runs/new/events.jsonl", time.monotonic() + PATIENCE
        while not (record.exists() and b'"run_started"' in record.read_bytes()):
            assert time.monotonic() < end, f"the run did not begin: {self.said()[-400:]}"
            time.sleep(0.005)


def newest(folder: Path) -> Path | None:
    """Return the newest sound checkpoint."""
    found = sorted((folder / "runs/new/checkpoints").glob("step-*"), reverse=True)
    return next((path for path in found if find_problem(path) is None), None)


def result(folder: Path) -> dict[str, Any]:
    """Return everything that a run came to."""
    path = newest(folder)
    assert path is not None, "no sound checkpoint"
    found = load_checkpoint(path)
    state = {**found.state, "train_seconds": 0, "random": {**found.state["random"], "python": 0}}
    return {"step": found.step, "state": json.dumps(state, sort_keys=True),
            **found.model, **found.optimizer}  # fmt: skip


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return the names of what is not equal to the last bit."""
    names = {*one, *other}
    return sorted(n for n in names if n not in one or n not in other or not _same(one[n], other[n]))


def _same(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Return the events of one kind, a torn last line left out."""
    lines = (folder / "runs/new/events.jsonl").read_text(errors="replace").splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
    return [each for each in found if each["kind"] == kind]


def losses(folder: Path) -> dict[int, float]:
    """Return the loss of each step, of those that stand in the end."""
    return {each["step"]: each["loss"] for each in events(folder, "step")}


class Round:
    """One run that something happens to.

    Args:
        base: a folder with a text.
        folder: where the run is made.
        seconds: how long it takes undisturbed.
        draw: when things happen, and to whom.
    """

    def __init__(self, base: Path, folder: Path, seconds: float, draw: random.Random) -> None:
        self.folder, self.draw, self._seconds = copy(base, folder), draw, seconds
        self.lost = 0

    def begin(self, **given: Any) -> Processes:
        """Start it, and wait until some moment between its beginning and its end."""
        started = Processes(self.folder, **given)
        started.wait_for_steps()
        time.sleep(self.draw.uniform(0, self._seconds))
        return started

    def go_on(self, world: int = 2) -> None:
        """Resume it, which must work, from a checkpoint that is as new as it can be."""
        record = self.folder / "runs/new/events.jsonl"
        done = max(losses(self.folder), default=0) if record.exists() else 0
        again = Processes(
            self.folder, world, resume=(self.folder / "runs/new/config.yaml").exists()
        )
        codes = again.wait()
        assert codes == [0] * world, f"going on: exit {codes}: {again.said()[-600:]}"
        since = events(self.folder, "run_started")[-1]["resumed_from"] or 0
        self.lost = max(done - since, 0)
        assert not (left := leftovers(self.folder)), f"left behind: {left}"


def kill_one(of: Round) -> str:
    started, victim = of.begin(), of.draw.randrange(2)
    ended = started.children[victim].kill() != -9
    code = started.wait([1 - victim])[0]
    if code != 0:
        named = f"rank {victim}" in started.children[1 - victim].said
        assert named, f"who was lost is not said: {started.children[1 - victim].said[-300:]}"
    return "all had ended" if ended or code == 0 else "the other named it"


def kill_all(of: Round) -> str:
    started = of.begin()
    for child in of.draw.sample(started.children, 2):
        child.kill()
    return "killed"


def hang(of: Round) -> str:
    started, victim = of.begin(wait=WAIT), of.draw.randrange(2)
    os.kill(started.children[victim].pid, signal.SIGSTOP)
    stopped = time.monotonic()
    code = started.wait([1 - victim])[0]
    took = time.monotonic() - stopped
    os.kill(started.children[victim].pid, signal.SIGCONT)
    started.children[victim].kill()
    if code == 0:
        return "all had ended"
    said = started.children[1 - victim].said
    assert f"rank {victim}" in said, f"who hangs is not said: {said[-300:]}"
    assert took < 4 * WAIT + 5, f"noticed after {took:.1f} s"
    return "named in time"


def full_disk(of: Round) -> str:
    started = of.begin()
    before = newest(of.folder)
    limit = of.draw.randrange(3000, 8000)  # bytes of a file: enough for words, not for a part
    try:
        resource.prlimit(started.children[1].pid, resource.RLIMIT_FSIZE, (limit, limit))
    except ProcessLookupError:
        return "all had ended"
    codes = started.wait()
    if codes == [0, 0]:
        return "all had ended"
    said = started.said()
    assert "disk is full" in said, f"not in words: {codes}: {said[-500:]}"
    assert 0 not in codes, f"a rank did not learn of it: {codes}: {said[-500:]}"
    assert before is None or find_problem(before) is None, "an earlier checkpoint was lost"
    return "told by both"


CASES: dict[str, tuple[Callable[[Round], str], int]] = {
    "one killed": (kill_one, 2),
    "all killed": (kill_all, 2),
    "one killed, one goes on": (kill_one, 1),
    "one hangs": (hang, 2),
    "full disk": (full_disk, 2),
}
ODD: dict[str, dict[str, Any]] = {
    "another setting": {"seed": 12},
    "another text": {"data": {"source": "other.txt"}},
}


def disagree(base: Path, folder: Path, changes: dict[str, Any]) -> str:
    started = Processes(copy(base, folder), changed={1: changes})
    codes = started.wait()
    assert 0 not in codes, f"they trained: {codes}"
    assert "do not agree" in started.said(), started.said()[-500:]
    assert not (folder / "runs/new/checkpoints/step-00000002").exists(), "steps were taken"
    return "refused before the first step"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases that were asked for and print what happened."""
    options = options_of(arguments, __doc__, [*CASES, *ODD], 10, "runs")
    draw, tally = random.Random(options.seed), Tally()
    with room("kills-") as place:
        base = Path(place) / "base"
        base.mkdir()
        (base / "text.txt").write_text(TEXT)
        (base / "other.txt").write_text(TEXT.replace("fool", "king"))
        alone = copy(base, Path(place) / "alone")
        first = Processes(alone)
        assert first.wait() == [0, 0], first.said()
        expected, told = result(alone), losses(alone)
        assert len(told) == 16, told
        times = [events(alone, kind)[0]["time"] for kind in ("run_started", "run_ended")]
        for name in options.names or [*CASES, *ODD]:
            lost: list[int] = []
            rounds = 1 if name in ODD else options.rounds
            for number in range(rounds):
                outcome, problem = "", ""
                try:
                    if name in ODD:
                        outcome = disagree(base, Path(place) / "odd", ODD[name])
                        tally.add(name, outcome, "")
                        continue
                    happen, world = CASES[name]
                    one = Round(base, Path(place) / "round", times[1] - times[0], draw)
                    outcome = happen(one)
                    cut = _cut_short(one.folder) if number % 2 else ""
                    one.go_on(world)
                    lost.append(one.lost - 2 * bool(cut))
                    if world == 2 and (other := differences(expected, result(one.folder))):
                        problem = f"not as undisturbed: {other[:3]}"
                    found = losses(one.folder)
                    if any(abs(found[n] - told[n]) > 1e-5 * abs(told[n]) for n in told):
                        problem = "other losses"
                    outcome += cut
                except AssertionError as error:
                    problem = str(error) or "an assertion failed"
                tally.add(f"{name}, round {number}", outcome, problem)
            most = f" (at most {max(lost)} steps again)" if lost else ""
            tally.close(name + most)
    return tally.exit_code()


def _cut_short(folder: Path) -> str:
    """Damage the newest of several checkpoints."""
    steps = sorted((folder / "runs/new/checkpoints").glob("step-*"))
    if len(steps) < 2:
        return ""
    part = sorted((steps[-1] / "model").glob("*.safetensors"))[-1]
    part.write_bytes(part.read_bytes()[:-7])
    return ", newest cut short"


if __name__ == "__main__":
    sys.exit(main())
