"""Speed of training steps, as a share of the products' ceiling measured in the same process."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile

from coterie.foundation.runs import RunDirectory
from coterie.train.flops import step_flops
from coterie.train.session import Session, open_session
from coterie.train.settings import RunSettings
from gpu_checks import names
from gpu_checks.machine import product_rate
from gpu_checks.registry import Bench, Cases, check

Shape = dict[str, Any]


def text_of(bench: Bench) -> str:
    """Return the path of a text of random words, made when first asked for."""
    path = bench.folder / "words.txt"
    if not path.exists():
        draw = random.Random(0)
        words = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 8))) for _ in range(500)]
        path.write_text(" ".join(draw.choices(words, k=60_000)), encoding="utf-8")
    return str(path)


def small(bench: Bench, feedforward: Shape) -> Shape:
    """Return the shape of a small decoder: 4 layers, 512 wide, windows of 512 tokens."""
    width, context = (64, 32) if bench.tiny else (512, 512)
    return {
        "layers": 4, "width": width, "context": context, "vocab_size": 8192,
        "attention": {"kind": "grouped", "heads": 8}, "feedforward": feedforward,
        "head": {"tied": False},
    }  # fmt: skip


def large(bench: Bench, feedforward: Shape) -> Shape:
    """Return the shape that fills a large GPU: 12 layers, 1,024 wide, windows of 2,048 tokens."""
    if bench.tiny:
        return small(bench, feedforward) | {"layers": 2}
    return {
        "layers": 12, "width": 1024, "context": 2048, "vocab_size": 32768,
        "attention": {"kind": "grouped", "heads": 16, "kv_heads": 4}, "feedforward": feedforward,
        "head": {"tied": False},
    }  # fmt: skip


def shapes(bench: Bench) -> dict[str, tuple[Shape, int]]:
    """Return each shape and the windows of one step; a dense twin has equal active parameters."""
    unit = 16 if bench.tiny else 128
    return {
        "coarse": (small(bench, names.moe(7, 6 * unit, 2, shared_experts=1)), 4),
        "fine": (small(bench, names.moe(63, unit, 8, shared_experts=1)), 4),
        "coarse dense twin": (small(bench, names.dense(18 * unit)), 4),
        "fine dense twin": (small(bench, names.dense(9 * unit)), 4),
        "large, 2 layers": (large(bench, names.moe(64, 4 * unit, 8)) | {"layers": 2}, 8),
        "large": (large(bench, names.moe(64, 4 * unit, 8)), 8),
        "large dense twin": (large(bench, names.dense(32 * unit)), 8),
        **presets(bench),
    }


def presets(bench: Bench) -> dict[str, tuple[Shape, int]]:
    """Return two presets at full size."""
    if bench.tiny:
        return {}
    s15era, yinggem = (names.preset(name) for name in ("s15era", "yinggem"))
    return {"s15era": (s15era, 32), "yinggem": (yinggem, 16)}


def session_of(bench: Bench, model: Shape, windows: int, **train: Any) -> Session:
    """Open a training session of a shape."""
    said = names.run_settings(
        text_of(bench), model, **{"batch_size": windows, "steps": 1000, "device": bench.device,
                                  "precision": "bfloat16" if bench.cuda else "float32"} | train
    )  # fmt: skip
    folder = Path(bench.folder, "speed", str(time.monotonic_ns()))
    folder.mkdir(parents=True)
    run = RunDirectory.create(folder, "run")
    return open_session(RunSettings.model_validate(said), run)


def timed_steps(bench: Bench, session: Session, steps: int, warm: int = 3) -> float:
    """Return the median seconds of a training step: batch, both passes, clipping, optimizer."""
    times = []
    with session.loader() as loader:
        batches = loader.iterate(0)
        for step in range(warm + steps):
            bench.wait()
            begin = time.perf_counter()
            session.stepper(step, next(batches))
            bench.wait()
            times.append(time.perf_counter() - begin)
    return sorted(times[warm:])[steps // 2]


def rate(session: Session, seconds: float, peak: float) -> dict[str, Any]:
    """Return what a step of so many seconds comes to, beside the products' ceiling in FLOP/s."""
    return {
        "tokens/s": round(session.tokens_per_step / seconds),
        "ms": round(1e3 * seconds, 2),
        "share of ceiling": round(step_flops(session.settings) / seconds / peak, 4),
    }


def measure(bench: Bench, shape: str, steps: int) -> dict[str, Any]:
    """Return a shape's rate and its share of the ceiling."""
    model, windows = shapes(bench)[shape]
    session = session_of(bench, model, windows)
    seconds = timed_steps(bench, session, steps)
    kind = session.precision.name
    peak = 1e12 * product_rate(bench, kind, 256 if bench.tiny else 8192, 4)
    return rate(session, seconds, peak) | {
        "ceiling TFLOP/s": round(peak / 1e12, 2),
        "precision": kind,
        "parameters": sum(p.numel() for p in session.decoder.parameters()),
    }


@check("speed.train-small", "speed", limit=90)
def train_small(bench: Bench) -> dict[str, Any]:
    cases = Cases(bench)
    for shape in bench.some(("coarse", "fine", "coarse dense twin", "fine dense twin"), 2):
        with cases(shape):
            cases.figures[shape] = measure(bench, shape, 1 if bench.tiny else 10)
    return cases.result()


@check("speed.profile", "speed", limit=90)
def profiled(bench: Bench) -> dict[str, Any]:
    """Write where the time of one step goes, for two shapes, into profile.txt."""
    cases, tables = Cases(bench), []
    for shape in bench.some(("large, 2 layers", "fine")):
        with cases(shape):
            model, windows = shapes(bench)[shape]
            session = session_of(bench, model, windows)
            timed_steps(bench, session, 1, warm=2)
            activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * bench.cuda
            with profile(activities=activities) as record:
                timed_steps(bench, session, 1, warm=0)
            by = "self_device_time_total" if bench.cuda else "self_cpu_time_total"
            events = record.key_averages()
            for order in dict.fromkeys((by, "self_cpu_time_total")):
                table = events.table(sort_by=order, row_limit=20, max_name_column_width=70)
                tables.append(f"{shape}, one step, by {order}\n{table}\n")
            cases.figures[shape] = {
                each.key[:70]: round(getattr(each, by) / 1e3, 3)
                for each in sorted(events, key=lambda e: -getattr(e, by))[:10]
            }
            del session
    (bench.out / "profile.txt").write_text("\n".join(tables), encoding="utf-8")
    return cases.result()
