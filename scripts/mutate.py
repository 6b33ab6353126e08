"""Break one line at a time and see whether the tests notice: what a promise without a test hides.

    python scripts/mutate.py                 try all of scripts/mutations.yaml
    python scripts/mutate.py --only clip     those whose name or file holds a word
    python scripts/mutate.py --check         only see that each old text stands exactly once

The table lists groups of mutations: a file, the tests that must notice, and single changes as exact
texts, old and new. The tree is copied to a temporary folder; each change is made there, the tests
of its group are run until one fails, and the file is put back. First the tests run unchanged: a
mutation is caught only by tests that pass without it. Exit code 1 when one survives or the rate is
below `--least`, 2 when the table does not fit the code any more.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

TABLE = Path(__file__).with_name("mutations.yaml")
LEFT_OUT = (".git", ".venv", "__pycache__", ".pytest_cache", ".ruff_cache", "runs", "*.egg-info")
SLOWEST = 600  # seconds; a change that makes a test hang is caught


@dataclass(frozen=True)
class Mutation:
    """One change, and the tests that must notice it."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What the tests said of a change: `caught`, `survived`, or why it could not be tried."""

    mutation: Mutation
    said: str
    seconds: float


def read_table(path: Path = TABLE) -> list[Mutation]:
    """Return the mutations of a table.

    Raises:
        ValueError: two have one name, or a change changes nothing.
    """
    found = []
    for group in yaml.safe_load(path.read_text(encoding="utf-8")):
        tests = group["tests"].split()
        for each in group["mutations"]:
            own = tuple(each.get("tests", "").split() or tests)
            file = each.get("file", group["file"])
            found.append(Mutation(each["name"], file, each["old"], each["new"], own))
    names = [each.name for each in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two mutations are called {', '.join(sorted(twice))}")
    if idle := [each.name for each in found if each.old == each.new]:
        raise ValueError(f"nothing is changed by {', '.join(idle)}")
    return found


def misfits(root: Path, mutations: Sequence[Mutation]) -> Iterator[str]:
    """Yield what keeps a table from being tried on a tree."""
    for each in mutations:
        file = root / each.file
        times = file.read_text(encoding="utf-8").count(each.old) if file.is_file() else 0
        if times != 1:
            yield f"{each.name}: its old text stands {times} times in {each.file}, not once"
        for test in each.tests:
            if not (root / test.partition("::")[0]).exists():
                yield f"{each.name}: there is no {test}"


class Tree:
    """A copy of the project in which one change is made at a time."""

    def __init__(self, source: Path, place: Path) -> None:
        shutil.copytree(source, place, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)
        self.root = place
        # Compiled files are told stale by whole seconds: no two versions of a file share one.
        self._clock = int(time.time())

    def write(self, file: str, text: str) -> None:
        """Give a file a text and a time that it never had before."""
        path = self.root / file
        path.write_text(text, encoding="utf-8")
        self._clock += 1
        os.utime(path, (self._clock, self._clock))

    @contextlib.contextmanager
    def changed(self, mutation: Mutation) -> Iterator[None]:
        """Make a change inside the block."""
        before = (self.root / mutation.file).read_text(encoding="utf-8")
        self.write(mutation.file, before.replace(mutation.old, mutation.new))
        try:
            yield
        finally:
            self.write(mutation.file, before)

    def passes(self, tests: Sequence[str]) -> bool:
        """Run tests in a child of this process, which has loaded what takes long, up to a failure.

        No test may run in this process itself, so nothing of the project is loaded here.
        """
        child = os.fork()
        if child == 0:
            code = 3
            try:
                code = _run(self.root, tests)
            finally:
                os._exit(code)  # whatever happened, the child ends here
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) > 1:
            raise RuntimeError(f"pytest could not run {' '.join(tests)}")
        return status == 0


def _run(root: Path, tests: Sequence[str]) -> int:
    """Run pytest as the child; return 0 where all tests passed, 1 where one failed."""
    signal.alarm(SLOWEST)
    with open(os.devnull, "r+b") as null:
        for stream in (0, 1, 2):
            os.dup2(null.fileno(), stream)
    os.chdir(root)
    os.environ["PYTHONPATH"] = str(root)  # for the processes that tests start
    sys.path.insert(0, str(root))
    options = ["-x", "-q", "-p", "no:cacheprovider", "--no-header"]
    # Where a change keeps a module from being loaded, collecting fails: caught as well.
    return {0: 0, 1: 1, 2: 1}.get(int(pytest.main([*options, *tests])), 3)


def preload(root: Path) -> None:
    """Load what nearly every test of the project needs and no mutation touches."""
    if not (root / "coterie").is_dir():
        return
    for name in ("torch", "numpy", "pydantic"):  # no plugins of pytest, which wants to load those
        __import__(name)


def try_all(tree: Tree, mutations: Sequence[Mutation]) -> Iterator[Outcome]:
    """Yield the outcome of every mutation, after the tests themselves were seen to pass."""
    sound: dict[tuple[str, ...], bool] = {}
    for each in mutations:
        begin = time.perf_counter()
        if each.tests not in sound:
            sound[each.tests] = tree.passes(each.tests)
        if not sound[each.tests]:
            said = "not tried: its tests fail without it"
        else:
            with tree.changed(each):
                said = "survived" if tree.passes(each.tests) else "caught"
        yield Outcome(each, said, time.perf_counter() - begin)


def report(outcomes: Sequence[Outcome], least: float) -> int:
    """Print who survived and the rate; return the exit code."""
    missed = [outcome for outcome in outcomes if outcome.said != "caught"]
    for outcome in missed:
        print(f"{outcome.said}: {outcome.mutation.name} ({outcome.mutation.file})")
    caught = len(outcomes) - len(missed)
    rate = caught / max(len(outcomes), 1)
    print(f"{caught} of {len(outcomes)} mutations were caught: {rate:.1%}")
    return int(rate < least)


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the table; see the top of this file."""
    options: Any = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--only", default="", help="a word in the name or file")
    options.add_argument("--check", action="store_true", help="see only that the table fits")
    options.add_argument("--least", type=float, default=0.95, help="share that must be caught")
    options.add_argument("--table", type=Path, default=TABLE)
    options.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent)
    chosen = options.parse_args(arguments)
    mutations = [
        each for each in read_table(chosen.table) if chosen.only in f"{each.name} {each.file}"
    ]
    if problems := list(misfits(chosen.root, mutations)):
        print("\n".join(problems), file=sys.stderr)
        return 2
    if chosen.check:
        print(f"{len(mutations)} mutations fit the code")
        return 0
    preload(chosen.root)
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="coterie-mutate-") as folder:
        tree = Tree(chosen.root, Path(folder) / "tree")
        for outcome in try_all(tree, mutations):
            outcomes.append(outcome)
            print(f"{outcome.said:9} {outcome.seconds:6.1f} s  {outcome.mutation.name}", flush=True)
    return report(outcomes, chosen.least)


if __name__ == "__main__":
    sys.exit(main())
