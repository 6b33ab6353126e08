"""Time and memory of a sliding window against full causal attention, on the CPU.

    python benchmarks/window.py [--window 512] [--lengths 1024,2048,4096,8192,16384] [--pairs 5]
    python benchmarks/window.py --context          # yinggem's window of 512 at its context of 1,024
    python benchmarks/window.py --backends         # every back end that can, at each length

One product of attention, batch 1, 12 heads of 64, float32. Both sides run in turns in one process
after a warm-up; printed are medians in milliseconds, half the distance of the quartiles, and the
median and range of the pairwise ratios (below 1: the window is faster). Peak memory is the most
that PyTorch's allocator held during one call above the inputs, as its profiler records every
allocation; what libraries keep for themselves is not in it. Where time and memory grow linearly,
doubling the length at most doubles them (columns ×).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import accumulate

import torch
from torch.profiler import ProfilerActivity, profile

from coterie.foundation.errors import UserError
from coterie.foundation.settings import kind_of, members
from coterie.model.attention.backends import (
    AutoBackend,
    Backend,
    BackendSettings,
    FlashBackend,
    SDPABackend,
)
from coterie.model.attention.mask import Mask
from coterie.model.attention.products import attend

Way = Callable[[], object]
PASSES = ("forward", "forward+backward")


def draw(length: int, heads: int, channels: int, *, gradients: bool) -> list[torch.Tensor]:
    """Return queries, keys and values as a layer makes them: heads beside each other."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, length, heads, channels)
    parts = [torch.randn(shape, generator=generator).transpose(1, 2) for _ in range(3)]
    return [each.requires_grad_(gradients) for each in parts]


def way(inputs: list[torch.Tensor], mask: Mask, backend: BackendSettings) -> Way:
    """Return one product, with its gradients if the inputs ask for them."""
    gradients = inputs[0].requires_grad
    slope = torch.ones_like(inputs[0])

    def compute() -> object:
        with torch.set_grad_enabled(gradients):
            out = attend(inputs[0], inputs[1], inputs[2], mask, backend=backend)
            return torch.autograd.grad(out, inputs, slope) if gradients else out

    return compute


def seconds(compute: Way) -> float:
    """Return how long one call takes."""
    begin = time.perf_counter()
    compute()
    return time.perf_counter() - begin


def spread(values: list[float]) -> float:
    """Return half the distance of the quartiles."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / 2


def peak(compute: Way) -> float:
    """Return the most MiB that PyTorch's allocator held during a call, above what was held."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        compute()
    assert profiler.profiler is not None
    events = profiler.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return max(accumulate((size for _, size in changes), initial=0)) / 2**20


def compare(
    name: str, length: int, window: int, options: argparse.Namespace
) -> tuple[list[float], list[float], float, float]:
    """Return the times of the window and of full attention, taken in turns, and their memory."""
    inputs = draw(length, options.heads, options.channels, gradients=name != "forward")
    ours = way(inputs, Mask(window), AutoBackend())
    full = way(inputs, Mask(), SDPABackend())
    ours(), full()  # the warm-up
    pairs = [(seconds(ours), seconds(full)) for _ in range(options.pairs)]
    return [a for a, _ in pairs], [b for _, b in pairs], peak(ours), peak(full)


def print_table(lengths: list[int], window: int, options: argparse.Namespace) -> None:
    """Print the window against full causal attention, one line for each length and pass."""
    print(f"window {window} (backend auto) against full causal attention (sdpa)")
    print(
        f"{'tokens':>7} {'pass':<17} {'window ms':>15} {'×':>5} {'full ms':>15} "
        f"{'ratio (range)':>20} {'window MiB':>11} {'×':>5} {'full MiB':>9}"
    )
    last: dict[str, tuple[float, float]] = {}
    for length in lengths:
        for name in PASSES:
            ours, full, memory, full_memory = compare(name, length, window, options)
            ratios = sorted(a / b for a, b in zip(ours, full, strict=True))
            middle = statistics.median(ours)
            grew = [f"{now / max(then, 1e-9):.2f}" for now, then in zip(
                (middle, memory), last.get(name, ()), strict=False)] or ["", ""]  # fmt: skip
            print(
                f"{length:>7} {name:<17} {middle * 1e3:>9.1f} ±{spread(ours) * 1e3:>4.1f} "
                f"{grew[0]:>5} {statistics.median(full) * 1e3:>9.1f} ±{spread(full) * 1e3:>4.1f} "
                f"{statistics.median(ratios):>6.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f}) "
                f"{memory:>11.1f} {grew[1]:>5} {full_memory:>9.1f}",
                flush=True,
            )
            last[name] = (middle, memory)


def print_backends(lengths: list[int], window: int, options: argparse.Namespace) -> None:
    """Print the time of each back end that can compute the window here."""
    print(f"{'tokens':>7} {'pass':<17} medians in ms, window {window}")
    for length in lengths:
        for name in PASSES:
            inputs = draw(length, options.heads, options.channels, gradients=name != "forward")
            ways, refused = {}, []
            for member in members(Backend):
                scores = options.heads * length * length
                holds = kind_of(member) in ("dense", "flex") and scores > options.most_scores
                if member is FlashBackend or holds:
                    refused.append(kind_of(member))
                    continue
                ways[kind_of(member)] = way(inputs, Mask(window), member())
            times: dict[str, list[float]] = {}
            for turn in range(options.pairs + 1):
                for kind, compute in list(ways.items()):
                    try:
                        took = seconds(compute)
                    except UserError:
                        refused.append(kind)
                        del ways[kind]
                        continue
                    if turn:
                        times.setdefault(kind, []).append(took)
            listed = " ".join(
                f"{kind} {statistics.median(each) * 1e3:.1f} ±{spread(each) * 1e3:.1f}"
                for kind, each in times.items()
            )
            print(f"{length:>7} {name:<17} {listed}; not run: {', '.join(refused)}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--lengths", default="1024,2048,4096,8192,16384")
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--context", action="store_true", help="yinggem's window at its context")
    parser.add_argument("--backends", action="store_true", help="every back end that can")
    parser.add_argument("--most-scores", type=int, default=1 << 27)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lengths = [int(each) for each in options.lengths.split(",")]
    window = options.window
    if options.context:
        lengths, window = [1024], 512
    print(f"batch 1, {options.heads} heads of {options.channels}, {options.threads} threads")
    (print_backends if options.backends else print_table)(lengths, window, options)


if __name__ == "__main__":
    main()
