"""Break one line at a time and see whether the tests notice: what a promise without a test hides.

    python scripts/mutate.py                 try all of scripts/mutations.yaml
    python scripts/mutate.py --only clip     those whose name or file holds a word
    python scripts/mutate.py --check         only see that each old text stands exactly once

The table lists groups of mutations: a file, the tests that must notice, and single changes as exact
texts, old and new. Nothing is changed in the tree itself but in a copy of it. The tests of a group
are collected and run once as they are, for a mutation is caught only by tests that pass without it.
Then that process forks for each change, exchanges the code of the functions it is in, and runs the
tests up to the first failure. What survives so, or is not in a function, is tried once more in a
new process, with the changed file: it counts as caught or survived by that.

Exit code 1 when less than `--least` are caught, 2 when the table does not fit the code any more.
"""

from __future__ import annotations

import argparse
import gc
import inspect
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest
import yaml

TABLE = Path(__file__).with_name("mutations.yaml")
LEFT_OUT = (".git", ".venv", "__pycache__", ".pytest_cache", ".ruff_cache", "runs", "*.egg-info")
SLOWEST = 900  # seconds; a change that makes a test hang is caught
PASSED, FAILED, UNTRIED, BROKEN = range(4)  # exit codes of children


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
    """What the tests said of a change: `caught`, `survived`, or that it could not be tried."""

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
        for each in group["mutations"]:
            tests = tuple(each.get("tests", group["tests"]).split())
            found.append(Mutation(each["name"], group["file"], each["old"], each["new"], tests))
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
            path, _, name = test.partition("::")
            name = name.partition("[")[0]
            found = (root / path).exists()
            text = (root / path).read_text(encoding="utf-8") if name and found else ""
            if not found or (name and f"def {name}(" not in text):
                yield f"{each.name}: there is no {test}"


# Exchanging the code of functions that are loaded already.


def exchange(file: str, old: str, new: str) -> bool:
    """Give every loaded function of a file the code of another version of it.

    Returns:
        False where that is not all of the change, or nothing of it.
    """
    before, after = (compile(text, file, "exec", dont_inherit=True) for text in (old, new))
    codes: dict[str, CodeType] = {}
    if not _pair(before, after, codes) or not codes:
        return False
    found: set[str] = set()
    for function in gc.get_objects():
        # Not `isinstance`, which asks objects that warn when they are asked.
        if type(function) is FunctionType and function.__code__.co_filename == file:
            name = function.__code__.co_qualname
            if name in codes:
                try:
                    function.__code__ = codes[name]
                except ValueError:  # it closes over other variables now
                    return False
                found.add(name)
    inner = {name for name in codes if ".<locals>." in name}  # made anew by what is around them
    return bool(found) and found | inner == set(codes)


def _pair(before: CodeType, after: CodeType, codes: dict[str, CodeType]) -> bool:
    """Gather the changed functions by name; False where anything but functions was changed."""
    function = bool(before.co_flags & inspect.CO_OPTIMIZED)
    inside, outside = [[], []], [[], []]
    for side, code in enumerate((before, after)):
        for constant in code.co_consts:
            (inside if isinstance(constant, CodeType) else outside)[side].append(constant)
    if not function and (before.co_code != after.co_code or outside[0] != outside[1]):
        return False
    if function and before != after:
        if before.co_qualname in codes or before.co_qualname != after.co_qualname:
            return False  # two functions of one name, as of a property
        codes[before.co_qualname] = after
    for one, other in zip_longest(*inside):
        if one is None or other is None:
            if not function:
                return False
        elif not _pair(one, other, codes) and not function:
            return False
    return True


# Processes.


class Tree:
    """A copy of the project, in whose files one change is made at a time."""

    def __init__(self, source: Path, place: Path) -> None:
        shutil.copytree(source, place, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)
        self.root = place
        # Compiled files are told stale by whole seconds: no two versions of a file share one.
        self._clock = int(time.time())

    def versions(self, mutation: Mutation) -> tuple[str, str]:
        """Return a mutation's file as it is and as it becomes."""
        text = (self.root / mutation.file).read_text(encoding="utf-8")
        return text, text.replace(mutation.old, mutation.new)

    def passes_changed(self, mutation: Mutation) -> bool:
        """Return whether the tests pass in a process that loads the changed file."""
        before, after = self.versions(mutation)
        self._write(mutation.file, after)
        try:
            return child(lambda: run_pytest(self.root, mutation.tests)) == PASSED
        finally:
            self._write(mutation.file, before)

    def _write(self, file: str, text: str) -> None:
        path = self.root / file
        path.write_text(text, encoding="utf-8")
        self._clock += 1
        os.utime(path, (self._clock, self._clock))


def child(work: Callable[[], int]) -> int:
    """Do something in a fork of this process and return its exit code; FAILED if it was killed."""
    number = os.fork()
    if number == 0:
        code = BROKEN
        try:
            signal.alarm(SLOWEST)
            code = work()
        finally:
            os._exit(code)  # whatever happened, the child ends here
    _, status = os.waitpid(number, 0)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else FAILED


def run_pytest(root: Path, tests: Sequence[str], *plugins: object) -> int:
    """Run pytest in silence in this process, a child; collecting that fails is a failure too."""
    with open(os.devnull, "r+b") as null:
        for stream in (0, 1, 2):
            os.dup2(null.fileno(), stream)
    os.chdir(root)
    os.environ["PYTHONPATH"] = str(root)  # for the processes that tests start
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # no test needs a plugin, and they are slow
    sys.path.insert(0, str(root))
    options = ["-x", "-q", "-p", "no:cacheprovider", "--basetemp", str(root / ".tests")]
    code = int(pytest.main([*options, *tests], list(plugins)))
    return {0: PASSED, 1: FAILED, 2: FAILED}.get(code, BROKEN)


class Forks:
    """A plugin of pytest that runs the collected tests in one fork for each mutation.

    Args:
        tree: where the tests are.
        mutations: what to try.
        tell: called with the place of a mutation and the exit code of its fork; place −1 says
            whether the tests pass as they are, here and in a fork.
    """

    def __init__(
        self, tree: Tree, mutations: Sequence[Mutation], tell: Callable[[int, int], None]
    ) -> None:
        self._tree, self._mutations, self._tell = tree, mutations, tell

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the tests as they are, then once with each change."""
        sound = not session.testsfailed and self._passes(session) == PASSED
        if sound and child(lambda: self._passes(session)) == PASSED:
            self._tell(-1, PASSED)
            for place, mutation in enumerate(self._mutations):
                self._tell(place, child(lambda it=mutation: self._changed(session, it)))
        else:
            self._tell(-1, FAILED)
        return True

    def _changed(self, session: pytest.Session, mutation: Mutation) -> int:
        file = str(self._tree.root / mutation.file)
        return self._passes(session) if exchange(file, *self._tree.versions(mutation)) else UNTRIED

    @staticmethod
    def _passes(session: pytest.Session) -> int:
        for item, following in zip_longest(session.items, session.items[1:]):
            session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.testsfailed:
                return FAILED
        return PASSED


def first_try(tree: Tree, mutations: Sequence[Mutation]) -> dict[int, int]:
    """Return what forks said of mutations that share their tests, by place; −1 as `Forks` says."""
    reading, writing = os.pipe()

    def work() -> int:
        def tell(place: int, code: int) -> None:
            os.write(writing, f"{place} {code}\n".encode())

        return run_pytest(tree.root, mutations[0].tests, Forks(tree, mutations, tell))

    number = os.fork()
    if number == 0:
        try:
            work()
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="ascii") as lines:
        found = {int(place): int(code) for place, code in map(str.split, lines)}
    os.waitpid(number, 0)
    return found


def try_all(tree: Tree, mutations: Sequence[Mutation]) -> Iterator[Outcome]:
    """Yield the outcome of every mutation, those that share their tests together."""
    groups: dict[tuple[str, ...], list[Mutation]] = {}
    for each in mutations:
        groups.setdefault(each.tests, []).append(each)
    for group in groups.values():
        begin = time.perf_counter()
        found = first_try(tree, group)
        share = (time.perf_counter() - begin) / len(group)
        sound = found.get(-1) == PASSED
        for place, each in enumerate(group):
            begin = time.perf_counter()
            if not sound:
                said = "not tried: its tests fail without it"
            elif found.get(place) == FAILED:
                said = "caught"
            else:
                said = "survived" if tree.passes_changed(each) else "caught"
            yield Outcome(each, said, share + time.perf_counter() - begin)


def report(outcomes: Sequence[Outcome], least: float) -> int:
    """Print who survived and the rate; return the exit code."""
    missed = [outcome for outcome in outcomes if outcome.said != "caught"]
    for outcome in missed:
        print(f"{outcome.said}: {outcome.mutation.name} ({outcome.mutation.file})")
    caught = len(outcomes) - len(missed)
    rate = caught / max(len(outcomes), 1)
    print(f"{caught} of {len(outcomes)} mutations were caught: {rate:.1%}")
    return int(rate < least)


def preload(root: Path) -> None:
    """Load what nearly every test of the project needs and no mutation touches."""
    if (root / "coterie").is_dir():
        for name in ("torch", "torch._dynamo", "pydantic", "hypothesis", "jaxtyping", "beartype"):
            __import__(name)


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
