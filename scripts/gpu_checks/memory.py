"""The memory of training steps beside its estimate, running out of it for real, and full sizes.

The estimate counts tensors (`train/sketch.py`); the allocator's own peak stands beside it.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from coterie.train.live_memory import LiveMemory
from coterie.train.memory import estimate_memory
from coterie.train.memory_profile import tensors_of
from coterie.train.pressure import MemoryPressure, reader
from coterie.train.session import Session
from gpu_checks import names
from gpu_checks.machine import product_rate
from gpu_checks.registry import Bench, Cases, SkipError, check
from gpu_checks.speed import rate, session_of, timed_steps
from gpu_checks.steps import preset_session

_GIB = 2**30
SAVINGS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "selective": {"activation_checkpointing": "selective"},
    "recomputed": {"activation_checkpointing": True},
    "accumulated 4": {"gradient_accumulation": 4},
    "float16": {"precision": "float16"},
    "float32": {"precision": "float32"},
    "adafactor": {"optimizer": {"kind": "adafactor", "learning_rate": 1e-3}},
    "ema": {"ema": 0.999},
    "offload activations": {"offload": {"activations": True}},
    "offload optimizer": {"offload": {"optimizer": True}},
    "offload both": {"offload": {"activations": True, "optimizer": True}},
}
SAME = {"selective", "recomputed", "offload activations", "offload optimizer", "offload both"}
"""Savings that change no number: bit for bit on a CPU, which tests hold. On a GPU atomic sums
differ from run to run in bfloat16 (model.repeats); only another computation is caught here."""
_APART = 0.02
_MICRO = {"s15era": 8, "mymoe": 32, "yinggem": 16, "yinghub": 8, "blues": 8, "gpt2": 8}


def full_session(
    bench: Bench, name: str, windows: int, *, calm: bool = False, **train: Any
) -> Session:
    """Open a session of a preset at full size, or one that draws nothing and drops nothing."""
    kept = {"cuda_graph": False, "steps": 1000, "activation_checkpointing": False} | train
    if bench.tiny:
        return preset_session(bench, name, "tiny", **kept)
    model = names.preset(name)
    return session_of(bench, names.calm(model) if calm else model, windows, **kept)


@contextmanager
def fresh() -> Iterator[None]:
    """Start without what earlier cases left, and leave nothing."""
    for _ in range(2):
        gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    yield
    gc.collect()
    torch.cuda.empty_cache()


def peak_of(session: Session, steps: int = 3) -> tuple[float, list[float]]:
    """Return the most GiB that the allocator gave in the last steps, and all losses."""
    losses = []
    with session.loader() as loader:
        batches = loader.iterate(0)
        for step in range(steps):
            if step == 1:
                torch.cuda.reset_peak_memory_stats()
            losses.append(session.stepper(step, next(batches)).loss)
    return torch.cuda.max_memory_allocated() / _GIB, losses


@check("memory.estimate", "correct", limit=150)
def estimate(bench: Bench) -> dict[str, Any]:
    """The estimate of a step beside the allocator's peak, full sizes, each saving by itself."""
    if not bench.cuda:
        raise SkipError("the CPU's is measured by benchmarks/memory.py")
    cases, first = Cases(bench), {}
    rows = [(name, saving) for name in ("s15era", "mymoe") for saving in SAVINGS]
    for name, saving in rows + [(each, "as it is") for each in ("yinggem", "blues", "gpt2")]:
        with cases(f"{name} {saving}"), fresh():
            base = torch.cuda.memory_allocated()
            session = full_session(bench, name, _MICRO[name], **SAVINGS[saving])
            parts = estimate_memory(session.settings, session.precision)
            peak, losses = peak_of(session)
            first.setdefault(name, losses)
            apart = max(abs(a - b) for a, b in zip(first[name], losses, strict=True))
            reserved = torch.cuda.max_memory_reserved()
            seconds = timed_steps(bench, session, 5, warm=1)
            estimated = sum(parts.values()) / _GIB
            assert all(map(math.isfinite, losses)), f"losses {losses}"
            cases.figures[f"{name} {saving}"] = {
                "estimate GiB": round(estimated, 3), "peak GiB": round(peak - base / _GIB, 3),
                "ratio": round(estimated / (peak - base / _GIB), 3),
                "reserved GiB": round(reserved / _GIB, 2), "ms": round(1e3 * seconds, 1),
                "losses apart": apart,
                "parts GiB": {part: round(size / _GIB, 3) for part, size in parts.items()},
            }  # fmt: skip
            assert saving not in SAME or apart < _APART, f"losses differ by {apart:.1e}"
            del session
    return cases.result()


@check("memory.by-part", "correct", limit=60)
def by_part(bench: Bench) -> dict[str, Any]:
    """What is alive at a real step's fullest moment, by part, beside the estimate's parts."""
    cases = Cases(bench)
    for name in bench.some(("s15era", "mymoe")):
        with cases(name), fresh() if bench.cuda else _nothing():
            session = full_session(bench, name, _MICRO[name])
            parts = estimate_memory(session.settings, session.precision)
            with session.loader() as loader:
                batches = loader.iterate(0)
                session.stepper(0, next(batches))
                live = LiveMemory(bench.device)
                with live.watching(session.stepper):
                    live.hold_all(tensors_of(session.stepper.optimizer, set()), "optimizer")
                    session.stepper(1, next(batches))
            found = {part: round(size / _GIB, 4) for part, size in sorted(live.peak.items())}
            told = {part: round(size / _GIB, 4) for part, size in sorted(parts.items())}
            cases.figures[name] = {"seen": found, "estimated": told}
            del session
    return cases.result()


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def at_most(gigabytes: float) -> Iterator[None]:
    """Let the allocator have no more than that."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(gigabytes * _GIB / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def _gradients(session: Session, batch: Any) -> tuple[torch.Tensor, float]:
    """Return all gradients of one batch as float64 on the CPU, and the loss."""
    metrics, _ = session.stepper._gradients(batch, False)
    found = [p.grad.detach().flatten().double().cpu() for p in session.decoder.parameters()
             if p.grad is not None]  # fmt: skip
    loss = float(metrics.loss)
    session.stepper._forget()
    return torch.cat(found), loss


@check("memory.recovery", "correct", limit=120)
def recovery(bench: Bench) -> dict[str, Any]:
    """A step that runs out of the GPU's memory is cut finer and has the same gradient."""
    if not bench.cuda:
        raise SkipError("tests inject the failure on a CPU")
    cases = Cases(bench)
    for name, recorded in (("s15era", False), ("mymoe", False), ("s15era", True)):
        case = name + " recorded" * recorded
        with cases(case), fresh():
            session = full_session(bench, name, _MICRO[name], calm=True, precision="float32",
                                   cuda_graph=recorded)  # fmt: skip
            told: list[str] = []
            session.stepper.tell = told.append
            with session.loader() as loader:
                batches = loader.iterate(0)
                for step in range(3):  # the optimizer has its state
                    session.stepper(step, next(batches))
                batch = next(batches)
                graph, session.stepper.recorded = session.stepper.recorded, None
                del graph
                gc.collect()
                torch.cuda.empty_cache()
                held = torch.cuda.memory_allocated() / _GIB
                torch.cuda.reset_peak_memory_stats()
                whole, loss = _gradients(session, batch)
                peak = torch.cuda.max_memory_allocated() / _GIB
                torch.cuda.empty_cache()
                if recorded:
                    session.stepper.record()
                limit = held + 0.45 * (peak - held)
                with at_most(limit):
                    if recorded:
                        results = [session.stepper(s, next(batches)) for s in range(3, 6)]
                        assert all(math.isfinite(r.loss) for r in results)
                        cut, less = None, results[0].loss
                    else:
                        cut, less = _gradients(session, batch)
                        session.stepper(3, batch)
            assert session.stepper.pieces > 1, "memory sufficed"
            assert any("Memory does not suffice" in each for each in told), told
            figures = {"held GiB": round(held, 2), "peak GiB": round(peak, 2),
                       "limit GiB": round(limit, 2), "pieces": session.stepper.pieces}  # fmt: skip
            if cut is not None:
                apart = float((whole - cut).norm() / whole.norm())
                figures |= {"gradient apart": apart, "loss apart": abs(loss - less)}
                assert apart < 1e-4, f"gradients are {apart:.1e} apart"
            cases.figures[case] = figures
            del session, whole, cut
    return cases.result()


@check("memory.dynamic", "correct", limit=60)
def dynamic(bench: Bench) -> dict[str, Any]:
    """Micro-batches shrink under real pressure and grow when it goes."""
    if not bench.cuda:
        raise SkipError("tests do so on a CPU")
    cases = Cases(bench)
    with cases("quickstart"), fresh():
        session = preset_session(bench, "quickstart", None, dynamic_batch=True, cuda_graph=True)
        rows = session.settings.train.batch_size
        reading = reader(torch.device("cuda"))
        session.stepper.pressure = MemoryPressure(reading, 1, rows)
        seen = []
        with session.loader() as loader:
            batches = loader.iterate(0)
            block = None
            for step in range(24):
                if step == 4:
                    free, total = torch.cuda.mem_get_info()
                    block = torch.empty(int(free - 0.10 * total), dtype=torch.uint8, device="cuda")
                if step == 14:
                    block = None
                    torch.cuda.empty_cache()
                result = session.stepper(step, next(batches))
                seen.append((result.pieces, round(result.pressure or 0.0, 2)))
        del block
        cases.figures["quickstart"] = {"pieces and pressure": seen}
        assert max(pieces for pieces, _ in seen[4:14]) > 1, f"never cut: {seen}"
        assert seen[-1][0] < max(pieces for pieces, _ in seen), f"never grew: {seen}"
    return cases.result()


@check("train.full", "correct", limit=150)
def full(bench: Bench) -> dict[str, Any]:
    """Train two presets at full size in half precision: losses, rate, memory, skipped steps."""
    if not bench.cuda:
        raise SkipError("full sizes need a GPU")
    cases, peak = Cases(bench), 1e12 * product_rate(bench, "bfloat16", 8192, 4)
    for name in ("s15era", "mymoe"):
        for precision in ("bfloat16", "float16"):
            with cases(f"{name} {precision}"), fresh():
                session = full_session(bench, name, _MICRO[name], precision=precision,
                                       cuda_graph=True)  # fmt: skip
                results = []
                with session.loader() as loader:
                    batches = loader.iterate(0)
                    for step in range(60):
                        results.append(session.stepper(step, next(batches)))
                losses = [result.loss for result in results]
                seconds = timed_steps(bench, session, 10)
                cases.figures[f"{name} {precision}"] = {
                    "losses": [round(loss, 3) for loss in losses[::10] + losses[-1:]],
                    "skipped": sum(not result.moved for result in results),
                    "GiB": round(torch.cuda.max_memory_allocated() / _GIB, 2),
                    **rate(session, seconds, peak),
                }  # fmt: skip
                assert losses[-1] < losses[0], losses  # nor not a number
                del session
    return cases.result()
