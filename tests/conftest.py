"""What every test shares: shapes are checked, threads are few, places are temporary.

Ends a run with the CPU seconds each folder took, so that the budgets of CONTRIBUTING.md can be
seen; `--slowest 20` names the costliest tests too. What a test draws from `random` follows from the
run's seed and its own name: a failure prints the seed, and `--seed N` draws the same again.
"""

from __future__ import annotations

import os
import random
import resource
import zlib
from collections import defaultdict
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Shape annotations are enforced under pytest only; users pay nothing for them.
install_import_hook(["coterie.model", "coterie.generate"], "beartype.beartype")

import hypothesis  # noqa: E402
import torch  # noqa: E402

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
