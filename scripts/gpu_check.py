"""Runs the checks of one CUDA device, each isolated, and writes what they found.

    scripts/gpu_check.sh [--device cuda|cpu] [--only PATTERN …] [--budget SECONDS] [--list]

This process imports neither torch nor the package: lanes of checks are worker processes, started
anew behind a check that took its process along or ran past its limit. Results are printed and
written as they come, so that whatever ends the run, what was found until then is there.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

MODULES = ("machine", "correct", "compiled", "training", "precision", "speed", "steps", "memory",
           "decoding", "choices", "alignment", "parallel")  # fmt: skip
LEFT = {"status": "left", "seconds": 0.0, "problem": "the budget was spent", "figures": {}}
TINY = "tiny sizes, the CPU: a rehearsal, whose figures mean nothing"


class Lane:
    """A worker process and the checks it still has to do."""

    def __init__(self, name: str, checks: list[tuple[str, float]], arguments: list[str],
                 folder: Path, log: Any) -> None:  # fmt: skip
        self.name, self.waiting = name, checks
        self._arguments, self._log = arguments, log
        self._file = folder / f"{name}.jsonl"
        self._read, self._since = 0, time.monotonic()
        self._process: subprocess.Popen[bytes] | None = None

    def advance(self) -> list[dict[str, Any]]:
        """Return the new results; see that the process lives and keeps to the limits."""
        if self._process is None and self.waiting:
            self._start()
        found = self._results()
        for result in found:
            self.waiting = [each for each in self.waiting if each[0] != result["check"]]
            self._since = time.monotonic()
        if not self.waiting:
            self.stop()
            return found
        name, limit = self.waiting[0]
        process = self._process
        if process is not None and process.poll() is not None:
            late = self._results()
            if late:
                self.waiting = [w for w in self.waiting if w[0] not in {r["check"] for r in late}]
                self._process = None
                return found + late
            found.append(self._lost(name, f"the process ended with {process.returncode}"))
        elif time.monotonic() - self._since > limit + 60 * (self._read == 0):  # torch's import
            self.stop()
            found.append(self._lost(name, f"not done after {limit:.0f} s"))
        return found

    def stop(self) -> None:
        """End the process."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _lost(self, name: str, reason: str) -> dict[str, Any]:
        self.waiting, self._process = self.waiting[1:], None
        seconds = round(time.monotonic() - self._since, 1)
        return {"check": name, "status": "lost", "seconds": seconds, "problem": reason,
                "figures": {}}  # fmt: skip

    def _start(self) -> None:
        names = [name for name, _ in self.waiting]
        command = [sys.executable, __file__, "--worker", str(self._file), *self._arguments,
                   "--only", *names]  # fmt: skip
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT)
        self._since = time.monotonic()

    def _results(self) -> list[dict[str, Any]]:
        """Return the whole lines that the worker has written since the last look."""
        if not self._file.exists():
            return []
        lines = self._file.read_bytes().split(b"\n")[:-1]
        new, self._read = lines[self._read :], len(lines)
        return [json.loads(line) for line in new]


class Findings:
    """What was found so far, printed and written at once."""

    def __init__(self, out: Path, about: dict[str, Any]) -> None:
        self._path, self._about, self._begin = out / "results.json", about, time.monotonic()
        self.results: list[dict[str, Any]] = []

    def add(self, result: dict[str, Any]) -> None:
        """Take a result, print it and write all of them."""
        self.results.append(result)
        elapsed = time.monotonic() - self._begin
        print(f"{elapsed:6.1f}s  {result['status']:<7} {result['check']:<28} "
              f"{result['seconds']:.1f} s", flush=True)  # fmt: skip
        if result.get("problem"):
            print(f"           {result['problem'][:1500]}", flush=True)
        for name, value in result["figures"].items():
            print(f"           {name}: {json.dumps(value)[:400]}", flush=True)
        for told in result.get("warnings", []):
            print(f"           warning: {told[:300]}", flush=True)
        whole = {**self._about, "seconds": round(elapsed, 1), "results": self.results}
        self._path.write_text(json.dumps(whole, indent=1), encoding="utf-8")

    def summary(self) -> int:
        """Print how it ended; return how many checks did not hold."""
        bad = [each["check"] for each in self.results if each["status"] in ("failed", "lost")]
        print(f"\n{len(self.results)} checks, {len(bad)} with problems: {', '.join(bad) or 'none'}")
        return len(bad)


def load(arguments: argparse.Namespace) -> Any:
    """Import the checks and return their registry; a module that cannot be imported is told."""
    registry = importlib.import_module("gpu_checks.registry")
    for name in MODULES:
        try:
            importlib.import_module(f"gpu_checks.{name}")
        except Exception:
            print(f"gpu_checks.{name} cannot be imported:\n{traceback.format_exc()}", flush=True)
    return registry


class _Heard(logging.Handler):
    """Keeps what libraries warn of, once each."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: dict[str, None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self.said[f"{record.name}: {record.getMessage()}"] = None

    def warn(self, message: Any, category: type, *_: Any) -> None:
        """Take the place of `warnings.showwarning`."""
        self.said[f"{category.__name__}: {message}"] = None

    def take(self) -> list[str]:
        """Return what was said since the last call."""
        said, self.said = list(self.said), {}
        return [each.strip()[:400] for each in said[:8]]


def work(arguments: argparse.Namespace, file: Path) -> int:
    """Do checks one after the other in this process, a line in the file for each."""
    registry = load(arguments)
    bench = registry.Bench(arguments.device, arguments.device == "cpu", Path(arguments.folder),
                           Path(arguments.out))  # fmt: skip
    heard = _Heard()
    logging.getLogger().addHandler(heard)
    for library in ("torch", "torch._dynamo", "torch._inductor"):
        logging.getLogger(library).addHandler(heard)
    warnings.showwarning = heard.warn
    for name in arguments.only:
        print(f"\n=== {name}", flush=True)
        result = one(registry, bench, name)
        result["warnings"] = heard.take()
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(result, default=str) + "\n")
        try:
            bench.wait()
        except Exception as error:
            print(f"The device is lost to this process: {error}", flush=True)
            return 3
    return 0


def one(registry: Any, bench: Any, name: str) -> dict[str, Any]:
    """Run a check and return its result, whatever happens."""
    begin, status, problem, figures = time.perf_counter(), "good", "", {}
    try:
        if name not in registry.CHECKS:
            raise RuntimeError("its module cannot be imported; the log says why")
        figures = registry.CHECKS[name].run(bench)
    except registry.SkipError as skip:
        status, problem = "skipped", str(skip)
    except registry.CasesError as failed:
        status, problem, figures = "failed", str(failed), failed.figures
    except Exception as error:
        print(traceback.format_exc(), flush=True)
        status, problem = "failed", f"{type(error).__name__}: {error}"
    seconds = round(time.perf_counter() - begin, 2)
    return {"check": name, "status": status, "seconds": seconds, "problem": problem,
            "figures": figures}  # fmt: skip


def listed(arguments: argparse.Namespace) -> tuple[list[list[str]], list[dict[str, Any]]]:
    """Return the phases and the wanted checks, asked of a process that imports them."""
    command = [sys.executable, __file__, "--list", "--device", arguments.device]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    if said.returncode:
        raise SystemExit(f"The checks cannot be listed:\n{said.stdout}\n{said.stderr}")
    print(said.stderr, end="")
    found = json.loads(said.stdout.splitlines()[-1])
    patterns = arguments.only or ["*"]
    wanted = [each for each in found["checks"]
              if any(fnmatch.fnmatch(each["name"], pattern) for pattern in patterns)]  # fmt: skip
    return found["phases"], wanted


def show_list(arguments: argparse.Namespace) -> int:
    """Print the phases and checks as one line of JSON."""
    registry = load(arguments)
    checks = [{"name": c.name, "lane": c.lane, "limit": c.limit} for c in registry.CHECKS.values()]
    print(json.dumps({"phases": registry.PHASES, "checks": checks}))
    return 0


def run(arguments: argparse.Namespace) -> int:
    """Run the phases, lanes side by side, until the budget is spent."""
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    phases, wanted = listed(arguments)
    about = {"device": arguments.device, "note": TINY if arguments.device == "cpu" else ""}
    findings, slack = Findings(out, about), 1 if arguments.device == "cuda" else 5
    with tempfile.TemporaryDirectory() as name, (out / "log").open("ab", buffering=0) as log:
        passed = ["--device", arguments.device, "--out", str(out), "--folder", name]
        for phase in phases:
            lanes = [Lane(lane, [(each["name"], each["limit"] * slack) for each in wanted
                                 if each["lane"] == lane], passed, Path(name), log)
                     for lane in phase]  # fmt: skip
            while any(lane.waiting for lane in lanes):
                for lane in lanes:
                    for result in lane.advance():
                        findings.add(result)
                    if time.monotonic() - begin > arguments.budget:
                        lane.stop()
                        for left, _ in lane.waiting:
                            findings.add(LEFT | {"check": left})
                        lane.waiting = []
                time.sleep(0.05)
    return 1 if findings.summary() else 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--only", nargs="+", metavar="PATTERN", help="checks by name, as files")
    parser.add_argument("--budget", type=float, default=330.0, help="seconds for everything")
    parser.add_argument("--out", default=os.environ.get("OUT", "gpu-check"))
    parser.add_argument("--list", action="store_true", help="print the checks as JSON and stop")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.list:
        return show_list(arguments)
    return run(arguments) if arguments.worker is None else work(arguments, arguments.worker)


if __name__ == "__main__":
    sys.exit(main())
