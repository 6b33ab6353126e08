"""What every test shares: shapes are checked, threads are few, places are temporary.

Ends a run with the CPU seconds each folder took, so that the budgets of CONTRIBUTING.md can be
seen; `--slowest 20` names the costliest tests too. What a test draws from `random` follows from the
run's seed and its own name: a failure prints the seed, and `--seed N` draws the same again.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import types
import zlib
from collections import defaultdict
from inspect import signature
from pathlib import Path

import hypothesis
import jaxtyping
import pytest
import torch


class EnteredError(Exception):
    """The arguments are as annotated; there is no result yet."""


class Annotations:
    """The annotations of one function, enforced once for each kind of call.

    A check depends on nothing but types, shapes and float types: calls that agree in these are
    checked when the first of them comes.
    """

    lock = threading.RLock()
    of: dict[tuple[object, ...], Annotations] = {}

    def __init__(self, function, checker):
        self.function, self.checker, self.seen, self.result = function, checker, set(), []

    @functools.cached_property
    def check(self):
        """Return a function of the same annotations that hands out the result put into it."""
        result, entered = self.result, EnteredError

        def stand_in(*given, **named):
            if not result:
                raise entered
            return result[0]

        where = self.function.__globals__  # where the names of annotations are found
        stand_in = types.FunctionType(stand_in.__code__, where, None, None, stand_in.__closure__)
        functools.update_wrapper(stand_in, self.function).__signature__ = signature(self.function)
        del stand_in.__wrapped__, self.function  # what it closes over may go
        return enforce(stand_in, typechecker=self.checker)

    def enforce(self, kinds, given, named, *result):
        with self.lock:
            drawn = random.getstate()  # one item of a list is looked at, drawn at random
            self.result[:] = result
            try:
                self.check(*given, **named)
            except EnteredError:
                pass
            finally:
                self.result.clear()
                random.setstate(drawn)
            self.seen.add(kinds)


def kind(value, depth=4):
    """Return all that an annotation can ask of a value, which looks no deeper than that."""
    if isinstance(value, torch.Tensor):
        return type(value), value.dtype, value.shape
    if not depth:
        return type(value)
    if isinstance(value, tuple | list) and value:
        looked = value[:8] if len(value) <= 8 else (*value[:8], value[-1])
        return type(value), *(kind(each, depth - 1) for each in looked)
    if isinstance(value, dict):
        return type(value), *(
            (kind(key, depth - 1), kind(each, depth - 1)) for key, each in [*value.items()][:8]
        )
    return value if isinstance(value, str) and len(value) < 32 else type(value)


enforce = jaxtyping.jaxtyped


def enforce_once(function=None, *, typechecker):
    """Stand in for `jaxtyped`, which costs most calls of a small model more than they do."""
    if function is None:
        return functools.partial(enforce_once, typechecker=typechecker)
    if isinstance(function, type):
        if dataclasses.is_dataclass(function) and "__init__" in vars(function):
            function.__init__ = enforce_once(function.__init__, typechecker=typechecker)
        return function
    # Equal code may stand in two classes; a function in a function is the same each time.
    name = function.__module__, function.__qualname__, str(function.__annotations__)
    own = Annotations.of.setdefault((*name, function.__code__), Annotations(function, typechecker))
    seen = own.seen

    @functools.wraps(function)
    def enforced(*given, **named):
        __tracebackhide__ = True
        kinds = *map(kind, given), *((name, kind(each)) for name, each in named.items())
        if kinds not in seen:
            own.enforce(kinds, given, named)
        result = function(*given, **named)
        kinds = kinds, kind(result)
        if kinds not in seen:
            own.enforce(kinds, given, named, result)
        return result

    return enforced


# Shape annotations are enforced under pytest only; users pay nothing for them.
jaxtyping.jaxtyped = enforce_once
jaxtyping.install_import_hook(["coterie.model", "coterie.generate"], "beartype.beartype")

from coterie.foundation.runs import cache_root  # noqa: E402
from coterie.generate import Engine  # noqa: E402
from coterie.generate.native import folder  # noqa: E402

# Machine code is the same whatever is tested: compiled once per machine, as for users, and not
# once per process (16 CPU seconds). Its folder is named after a digest of its sources.
_KERNELS = cache_root()
folder.cache_root = lambda: _KERNELS
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(_KERNELS / "compiled"))

# A busy machine draws examples slowly; that says nothing of what is tested. What failed among
# examples drawn anew is printed as a line to paste.
for profile in ("same", "anew"):
    hypothesis.settings.register_profile(
        profile,
        deadline=None,
        derandomize=profile == "same",
        print_blob=True,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )

SEED = 1  # of the tests that draw at random, unless another is named

DEVICE = os.environ.get("COTERIE_TEST_DEVICE", "cpu")  # where engines of `any_device` tests compute

torch.set_num_threads(1)  # tests run side by side; two threads each would fight for the cores


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Give each test its own runs and cache, and a working directory that it may fill."""
    monkeypatch.setenv("COTERIE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("COTERIE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # for the processes that tests start
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def random_streams(request):
    """Let what a test draws depend on no test before it: `random` by the run, torch never."""
    name = request.node.nodeid
    random.seed(f"{request.config.option.seed} {name}")
    torch.manual_seed(zlib.crc32(name.encode()))


@pytest.fixture(autouse=True)
def device(request, monkeypatch):
    """Let the engines of tests for any device compute where the environment says."""
    if DEVICE == "cpu":
        return
    if request.node.get_closest_marker("any_device") is None:
        pytest.skip("is not for any device")
    build = Engine.__init__

    def moved(self, decoder, *given, **named):
        build(self, decoder.to(DEVICE), *given, **named)

    monkeypatch.setattr(Engine, "__init__", moved)


@pytest.fixture(autouse=True, scope="session")
def plain_terminal():
    """Keep the terminal of whoever runs the tests out of what they see."""
    os.environ["TERM"] = "dumb"
    os.environ.pop("FORCE_COLOR", None)
    os.environ["NO_COLOR"] = "1"


def cpu_seconds() -> float:
    """Return what this process and the processes it waited for have used, user and system."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


class Spending:
    """CPU and wall-clock seconds by test, also of xdist's workers, and the table at the end."""

    def __init__(self) -> None:
        self.before = 0.0
        self.collecting = 0.0
        self.cpu: defaultdict[str, float] = defaultdict(float)
        self.wall: defaultdict[str, float] = defaultdict(float)

    def pytest_collection_finish(self, session):
        self.before = cpu_seconds()
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["collecting"] = self.before
        else:
            self.collecting += self.before

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        self.collecting += getattr(node, "workeroutput", {}).get("collecting", 0.0)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item):
        report = yield
        if report.failed:
            report.sections.append(("random numbers", f"--seed {item.config.option.seed}"))
        now = cpu_seconds()
        report.cpu_seconds, self.before = now - self.before, now  # travels with the report
        return report

    def pytest_runtest_logreport(self, report):
        self.cpu[report.nodeid] += getattr(report, "cpu_seconds", 0.0)
        self.wall[report.nodeid] += report.duration

    def pytest_terminal_summary(self, terminalreporter, config):
        folders: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0])
        for test, seconds in self.cpu.items():
            for slot, value in enumerate((seconds, self.wall[test], 1)):
                folders[Path(test.split("::")[0]).parent.as_posix()][slot] += value
        if len(folders) > 1:
            terminalreporter.section("CPU and wall-clock seconds, tests")
            folders = dict(sorted(folders.items()))
            folders["starting, collecting"] = [self.collecting, 0.0, 0]
            folders["all"] = [sum(column) for column in zip(*folders.values(), strict=True)]
            for folder, (cpu, wall, count) in folders.items():
                terminalreporter.write_line(f"{cpu:8.1f} {wall:8.1f} {count:6d}  {folder}")
        for test in sorted(self.cpu, key=self.cpu.get, reverse=True)[: config.option.slowest]:
            terminalreporter.write_line(f"{self.cpu[test]:8.2f}  {test}")


def pytest_addoption(parser):
    parser.addoption(
        "--slowest", type=int, default=0, metavar="N", help="name the N tests that use most CPU"
    )

    parser.addoption(
        "--seed", type=int, default=SEED, metavar="N", help="of the tests' random numbers"
    )


def pytest_configure(config):
    hypothesis.settings.load_profile("same" if config.option.seed == SEED else "anew")
    config.pluginmanager.register(Spending(), "spending")


RECORDER = """
import sys, time
import numpy as np
from coterie.foundation.event_log import EventLog
from coterie.foundation.locks import own
from coterie.foundation.traces import TraceWriter, read_trace
from coterie.train.events import RunStarted, StepDone
made = read_trace(sys.argv[2])
writer = TraceWriter(sys.argv[1] + "/seen.trace", made.header).__enter__()
with own(sys.argv[1], "training"), EventLog(sys.argv[1] + "/events.jsonl") as log:
    log(RunStarted(name="mine", preset="tiny", parameters=10, active_parameters=5, steps=999,
                   tokens_per_step=8, device="cpu", precision="float32"))
    for at in range(1000):
        log(StepDone(step=at + 1, loss=2.0, learning_rate=0.1, gradient_norm=1, tokens=8,
                     seconds=1, tokens_per_second=8))
        if at < len(made.texts):
            writer.add(made.records[at : at + 1], [made.texts[at]], made.words)
        print(at, flush=True)
        time.sleep(0.002)
"""


@pytest.fixture
def killed_recorder():
    """Return what records a run, and a given trace anew, until it is killed with `kill -9`."""

    def kill(run, made, tokens=40):
        command = [sys.executable, "-c", RECORDER, str(run), str(made)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            while int(process.stdout.readline()) < tokens:
                pass
            process.kill()
        assert process.returncode == -signal.SIGKILL
        return run / "seen.trace"

    return kill


@pytest.fixture(scope="session")
def edu():
    """Return what writes a folder laid out as FineWeb-Edu is."""
    import pyarrow
    from pyarrow import parquet

    def edu(folder, documents=60, files=2, group=7):
        folder.mkdir()
        rows = [
            {
                "text": f"Document {n} tells what {n} times {n} is: {n * n}.\n" * 3,
                "id": f"<urn:uuid:{n:08d}>",
                "dump": "CC-MAIN-2024-10",
                "url": f"https://example.org/{n}",
                "file_path": "s3://example/warc.gz",
                "language": "en",
                "language_score": 0.98,
                "token_count": 30,
                "score": 3.1,
                "int_score": 3,
            }
            for n in range(documents)
        ]
        size = -(-documents // files)
        for n in range(files):
            table = pyarrow.Table.from_pylist(rows[n * size : (n + 1) * size])
            parquet.write_table(table, folder / f"{n:03d}_00000.parquet", row_group_size=group)
        return folder

    return edu
