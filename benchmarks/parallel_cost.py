"""What dividing a step among two processes costs: its time, the bytes sent, what hides them.

    python benchmarks/parallel_cost.py [--layouts data=2,shard=2,…] [--rounds 9] [--steps 2]
        [--preset quickstart] [--trace FOLDER] [key=value …]

Time: a step of two processes of one thread each beside one of one process of two threads, in turns;
the median of each and of the ratio, and the quartiles of that. Both sides have the same settings.
Bytes: what one process sends in a step, by the formulas of `coterie plan --gpus`, beside what the
kernel counted on its sockets (TCP_INFO, bytes_sent, all ranks' mean); everything that is sent is
counted, so what the formulas leave out shows as a difference, by kind of message with `--kinds`.
Overlap: of the time in which messages of gloo were on their way (from their start to their end, as
torch's profiler writes them down, waiting for the other process included) the share in which this
process computed something else, rank 0. `--trace` keeps the traces for chrome://tracing.
The preset is taken with four layers and even heads, so that two processes can divide both.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import stat
import statistics
import struct
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing
from torch.profiler import ProfilerActivity, profile

from coterie.api.given import layer_of, resolve
from coterie.foundation.layers import overrides_layer
from coterie.foundation.runs import RunDirectory
from coterie.parallel.ranks import ALONE, Several
from coterie.train import RunSettings, machine
from coterie.train.cluster.anatomy import Anatomy
from coterie.train.cluster.layout import Layout
from coterie.train.cluster.traffic import flows
from coterie.train.session import Session, open_session

LAYOUTS = ("data=2", "shard=2", "tensor=2", "pipeline=2", "data=2+expert=2")
STAGED = 8  # micro-batches of a step where stages divide it, on both sides
_SENT = 200  # offset of tcpi_bytes_sent in the kernel's struct tcp_info


def axes_of(layout: str) -> dict[str, int]:
    """Return the sizes that a layout names."""
    return {axis: int(n) for axis, n in (each.split("=") for each in layout.split("+") if each)}


def settings_of(layout: str, alone: bool, options: argparse.Namespace) -> RunSettings:
    """Return the settings of a layout, or of its twin in one process."""
    words: dict[str, Any] = {
        "train.steps": 10_000, "train.device": "cpu", "train.precision": "float32",
        "train.compile": False, "model.layers": 4, "model.attention.heads": 4,
        "train.gradient_accumulation": STAGED if "pipeline" in layout else 1,
    }  # fmt: skip
    if not alone:
        words |= {f"parallel.{axis}": size for axis, size in axes_of(layout).items()}
    layers = [layer_of(words), overrides_layer(options.words)]
    return resolve(options.preset, layers, options.scale).settings


class Sessions:
    """The sessions of one process, one a layout."""

    def __init__(self, rank: int, world: int, folder: Path, options: argparse.Namespace) -> None:
        self._rank, self._world, self._folder, self._options = rank, world, folder, options
        self._ranks = Several(torch.device("cpu")) if world > 1 else ALONE
        self._held: dict[str, tuple[Session, Iterator[Any], Iterator[int]]] = {}

    def open(self, layout: str) -> None:
        """Prepare a layout's steps and take two."""
        settings = settings_of(layout, self._world == 1, self._options)
        run = RunDirectory(self._folder / f"{layout}-of-{self._world}")
        session = open_session(settings, run, ranks=self._ranks)
        self._held[layout] = session, session.loader().iterate(0), iter(range(1 << 30))
        self.steps(layout, 2)

    def steps(self, layout: str, count: int) -> float:
        """Take steps; return the seconds of one."""
        session, batches, taken = self._held[layout]
        if self._world > 1:
            distributed.barrier()
        begin = time.perf_counter()
        for _ in range(count):
            float(session.stepper(next(taken), next(batches)).metrics.loss)
        return (time.perf_counter() - begin) / count

    def sent(self, layout: str, count: int) -> float:
        """Return the bytes that this process sends in a step."""
        before = bytes_sent()
        self.steps(layout, count)
        return (bytes_sent() - before) / count

    def formula(self, layout: str) -> float:
        """Return the bytes that the plan says a process sends in a step."""
        settings = self._held[layout][0].settings
        laid = Layout(**axes_of(layout), pieces=settings.train.gradient_accumulation)
        return sum(each.bytes for each in flows(Anatomy(settings), laid, 4))

    def hidden(self, layout: str, trace: str | None) -> tuple[float, float, dict[str, list[float]]]:
        """Return the milliseconds of messages, the share that computing hides, and kinds."""
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as found:
            self.steps(layout, 1)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(trace or folder) / f"{layout}-rank{self._rank}.json"
            found.export_chrome_trace(str(path))
            events = json.loads(path.read_text())["traceEvents"]
        spans = [each for each in events if each.get("ph") == "X"]
        messages = joined(each for each in spans if each["name"].startswith("gloo:"))
        computing = joined(each for each in spans if each["name"].startswith("aten::"))
        total = sum(end - begin for begin, end in messages)
        return total / 1e3, overlap(messages, computing) / max(total, 1e-9), kinds(spans)


def bytes_sent() -> int:
    """Return the bytes that this process sent over all its connections, by the kernel's count."""
    total = 0
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # the listing's own, or one that only listens
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                with socket.socket(fileno=os.dup(int(name))) as line:
                    line.getpeername()
                    told = line.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SENT + 8)
                    total += struct.unpack_from("Q", told, _SENT)[0]
    return total


def joined(spans: Iterator[dict[str, Any]]) -> list[tuple[float, float]]:
    """Return when any of some spans runs, in order, in microseconds."""
    found: list[tuple[float, float]] = []
    for begin, end in sorted((each["ts"], each["ts"] + each["dur"]) for each in spans):
        if found and begin <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((begin, end))
    return found


def overlap(one: Sequence[tuple[float, float]], other: Sequence[tuple[float, float]]) -> float:
    """Return how long both run at once."""
    return sum(
        max(0.0, min(a[1], b[1]) - max(a[0], b[0])) for a in one for b in other
        if b[0] < a[1] and a[0] < b[1]
    )  # fmt: skip


def kinds(spans: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Return by kind of message how many there are, and the values of what is given to them."""
    found: dict[str, list[float]] = defaultdict(lambda: [0, 0])
    for each in spans:
        if each["name"].startswith("gloo:"):
            dims = each.get("args", {}).get("Input Dims", [])
            flat = [d for d in dims if d and all(isinstance(n, int) for n in d)]
            found[each["name"]][0] += 1
            found[each["name"]][1] += sum(torch.Size(d).numel() for d in flat)
    return dict(found)


def work(rank: int, world: int, threads: int, folder: str, options: Any, line: Any) -> None:
    """Answer what is asked, in one process."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    machine.measure_matmul = lambda precision, seconds=0.0: 1e11
    if world > 1:
        store = distributed.FileStore(f"{folder}/store", world)
        distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
    sessions = Sessions(rank, world, Path(folder), options)
    while (asked := line.recv()) is not None:
        name, arguments = asked
        line.send(getattr(sessions, name)(*arguments))
    if world > 1:
        distributed.destroy_process_group()


class Crew:
    """Some processes that do the same."""

    def __init__(self, world: int, threads: int, folder: str, options: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._lines, self._processes = [], []
        for rank in range(world):
            ours, theirs = context.Pipe()
            given = (rank, world, threads, folder, options, theirs)
            self._processes.append(context.Process(target=work, args=given, daemon=True))
            self._processes[-1].start()
            self._lines.append(ours)

    def ask(self, name: str, *arguments: Any) -> list[Any]:
        """Return what each answers."""
        for line in self._lines:
            line.send((name, arguments))
        return [line.recv() for line in self._lines]

    def end(self) -> None:
        """Let them end."""
        for line in self._lines:
            line.send(None)
        for process in self._processes:
            process.join()


def quartiles(values: Sequence[float]) -> str:
    """Return a median and quartiles in words."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:6.3f} ({low:.3f} to {high:.3f})"


def timed(one: Crew, two: Crew, options: argparse.Namespace) -> None:
    """Print the time of each layout's step beside one process's."""
    alone: dict[str, list[float]] = defaultdict(list)
    shared: dict[str, list[float]] = defaultdict(list)
    for number in range(options.rounds):
        for layout in options.layouts:
            turns = [(one, alone), (two, shared)]
            for crew, seconds in turns if number % 2 else turns[::-1]:
                seconds[layout].append(max(crew.ask("steps", layout, options.steps)))
    print(f"{'layout':<18}{'1 × 2 threads':>14}{'2 × 1 thread':>14}  ratio")
    for layout in options.layouts:
        ratios = [b / a for a, b in zip(alone[layout], shared[layout], strict=True)]
        medians = (1e3 * statistics.median(each[layout]) for each in (alone, shared))
        told = "".join(f"{each:>11,.1f} ms" for each in medians)
        print(f"{layout:<18}{told}  {quartiles(ratios)}", flush=True)


def sent(two: Crew, options: argparse.Namespace) -> None:
    """Print the bytes of each layout's step, and what hides their time."""
    print(f"{'layout':<18}{'formula MiB':>12}{'sockets MiB':>12}{'messages':>12}{'hidden':>8}")
    for layout in options.layouts:
        formula = two.ask("formula", layout)[0] / 2**20
        found = statistics.mean(two.ask("sent", layout, options.steps)) / 2**20
        took, hidden, kind = two.ask("hidden", layout, options.trace)[0]
        print(f"{layout:<18}{formula:>12,.2f}{found:>12,.2f}{took:>9,.1f} ms{hidden:>8.0%}")
        for name, (count, values) in sorted(kind.items()) if options.kinds else ():
            print(f"    {name:<24}{count:>6,.0f} messages of {4 * values / 2**20:,.2f} MiB")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("words", nargs="*", default=[])
    parser.add_argument("--layouts", default=",".join(LAYOUTS))
    parser.add_argument("--preset", default="quickstart")
    parser.add_argument("--scale")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--trace", help="an existing folder")
    parser.add_argument("--kinds", action="store_true")
    options: Any = parser.parse_intermixed_args()
    options.layouts = options.layouts.split(",")
    with tempfile.TemporaryDirectory() as folder:
        one, two = Crew(1, 2, folder, options), Crew(2, 1, folder, options)
        for layout in options.layouts:
            one.ask("open", layout)
            two.ask("open", layout)
        if options.rounds:
            timed(one, two, options)
        sent(two, options)
        one.end()
        two.end()


if __name__ == "__main__":
    main()
