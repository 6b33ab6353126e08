"""What observing a run costs: events, loads, entropies, parts, looks, the live panel; beside none.

    python benchmarks/observing.py [quickstart s15era:tiny] [--pairs 9] [--steps 20] [--looks]

One session takes blocks of steps, in turns with everything observed (each step recorded on the
disk, the load, the routers' entropy, the parts and a look into routing every 20 steps, the panel
drawn in a terminal that goes nowhere; with --looks the looks alone) and with nothing. Printed are
the medians and the median of the pairs' ratio.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from coterie.api.given import resolve
from coterie.batch import TokenBatch
from coterie.foundation.layers import Layer
from coterie.foundation.runs import RunDirectory
from coterie.train.flops import step_flops
from coterie.train.monitor.publish import Publisher
from coterie.train.monitor.report import StepReporter
from coterie.train.monitor.routing import RoutingWatch
from coterie.train.progress import Progress
from coterie.train.session import Session, open_session
from coterie.train.step import StepResult
from coterie.visualise.terminal import Display


def block(
    session: Session, batches: list[TokenBatch], told: Callable[..., None] | None = None
) -> float:
    """Take a step on each batch; return the seconds."""
    begin = time.perf_counter()
    for batch in batches:
        started, progress = time.perf_counter(), session.progress
        result = session.stepper(progress.step, batch)
        seconds = time.perf_counter() - started
        progress.advance(tokens=session.tokens_per_step, seconds=seconds, loss=result.loss)
        if told is not None:
            told(progress, result, batch)
    return time.perf_counter() - begin


def measure(target: str, pairs: int, steps: int, looks: bool) -> None:
    """Measure one preset, PRESET or PRESET:SCALE, and print a line."""
    name, _, scale = target.partition(":")
    layer = Layer("here", {"train": {"steps": 10**6, "load_every": 20, "health_every": 20}})
    settings = resolve(name, [layer], scale or None).settings
    watching = settings.train
    blind = watching.model_copy(update={"health_every": 0})
    watching = blind if looks else watching
    with tempfile.TemporaryDirectory() as place, open("/dev/null", "w") as nowhere:
        session = open_session(settings, RunDirectory.create(Path(place), "observed"))
        console = Console(file=nowhere, force_terminal=True, width=100, height=40)
        with Display(console) as display, Publisher(session.run, [display]) as publish:
            flops = functools.cache(lambda step: float(step_flops(session.settings)))
            reporter = StepReporter(
                publish, session.decoder, flops_of=lambda step: flops(0), peak_flops=1e11,
                log_every=1, load_every=20, begun=session.progress,
            )  # fmt: skip
            watch = RoutingWatch(20, session.decoder, session.precision, session.tokenizer, publish)

            def tell(progress: Progress, result: StepResult, batch: TokenBatch) -> None:
                if not looks:
                    reporter.step_done(progress, result, last=False)
                watch.step_done(progress.step, batch)

            loader = session.loader()
            batches = [loader.batch(number) for number in range(steps)]
            taken: dict[str, list[float]] = {"observed": [], "blind": []}
            for number in range(2 * pairs + 2):
                way = "observed" if (number // 2 + number) % 2 else "blind"  # A B B A …
                session.stepper.settings = watching if way == "observed" else blind
                told = tell if way == "observed" else None
                seconds = block(session, batches, told)
                if number >= 2:  # the first two warm up
                    taken[way].append(seconds / steps)
    ratios = sorted(a / b for a, b in zip(taken["observed"], taken["blind"], strict=True))
    low, _, high = statistics.quantiles(ratios, n=4)
    print(
        f"{target}: {1e3 * statistics.median(taken['observed']):.2f} ms a step observed, "
        f"{1e3 * statistics.median(taken['blind']):.2f} blind; ratio "
        f"{statistics.median(ratios):.4f} (quartiles {low:.4f}–{high:.4f}, {pairs} pairs)",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("targets", nargs="*", default=["quickstart", "s15era:tiny"])
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--looks", action="store_true", help="looks into routing alone")
    asked = parser.parse_args()
    for target in asked.targets:
        measure(target, asked.pairs, asked.steps, asked.looks)


if __name__ == "__main__":
    main()
