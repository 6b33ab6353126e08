"""Training steps: Muon in half precision, steps that wait for nothing, what each measure gains."""

from __future__ import annotations

import math
import time
import warnings
from typing import Any

import torch

from coterie.api.given import resolve
from coterie.presets import preset_names
from coterie.train.compiled_blocks import CompiledBlocks
from coterie.train.session import Session
from gpu_checks import names
from gpu_checks.machine import product_rate
from gpu_checks.registry import Bench, Cases, SkipError, check
from gpu_checks.speed import rate, session_of, shapes, timed_steps

_MUST_NOT_WAIT = ("blues", "gpt2", "mymoe", "quickstart", "s15era", "yinggem", "yinghub")


def preset_session(bench: Bench, name: str, scale: str | None, **train: Any) -> Session:
    """Open a session of a preset's model and optimizer, over our text of random words."""
    settings = resolve(name, scale=scale).settings
    model = settings.model.model_dump() | {"vocab_size": None, "additive": ()}
    kept = settings.train.model_dump()
    kept = {key: kept[key] for key in ("optimizer", "schedule", "clip")}
    return session_of(bench, model, settings.train.batch_size, **kept | train)


@check("train.muon", "train", limit=120)
def muon(bench: Bench) -> dict[str, Any]:
    """The losses of 60 steps of `quickstart` at full size, in bfloat16 beside float32."""
    cases, steps, found = Cases(bench), 3 if bench.tiny else 60, {}
    for precision in ("float32", "bfloat16"):
        with cases(precision):
            scale = "tiny" if bench.tiny else None
            session = preset_session(bench, "quickstart", scale, precision=precision, steps=1400)
            with session.loader() as loader:
                batches = loader.iterate(0)
                found[precision] = [session.stepper(s, next(batches)) for s in range(steps)]
            losses = [result.loss for result in found[precision]]
            norms = [result.gradient_norm for result in found[precision]]
            cases.figures[precision] = {
                "losses": [round(loss, 3) for loss in losses[:: max(1, steps // 10)]],
                "last": round(losses[-1], 4), "largest norm": round(max(norms), 2),
            }  # fmt: skip
            assert all(map(math.isfinite, losses)), "a loss is not finite"
            assert losses[-1] < losses[0], f"the loss went from {losses[0]} to {losses[-1]}"
    with cases("side by side"):
        ends = [sum(r.loss for r in results[-5:]) / 5 for results in found.values()]
        cases.figures["side by side"] = {"mean of the last 5": [round(end, 4) for end in ends]}
        assert bench.tiny or abs(ends[0] - ends[1]) < 0.1, f"they end at {ends}"
    return cases.result()


@check("train.recorded", "correct", limit=200)
def recorded(bench: Bench) -> dict[str, Any]:
    """Steps recorded as a CUDA graph learn as those that run kernel by kernel, and how fast."""
    cases, steps = Cases(bench), 3 if bench.tiny else 30
    scales = dict.fromkeys(preset_names(), "tiny") | {"quickstart full": None}
    for name in bench.some(scales, 2):
        for precision in ("bfloat16", "float16") if bench.cuda else ("float32",):
            with cases(f"{name} {precision}"):
                losses, figures = [], cases.figures.setdefault(f"{name} {precision}", {})
                for graph in (False, True):
                    session = preset_session(
                        bench, name.split()[0], "tiny" if bench.tiny else scales[name],
                        precision=precision, cuda_graph=graph,
                    )  # fmt: skip
                    if bench.device == "cpu" and graph:
                        session.stepper.record(_again)
                    with session.loader() as loader:
                        batches = loader.iterate(0)
                        losses.append(
                            [session.stepper(s, next(batches)).loss for s in range(steps)]
                        )
                    taken = session.stepper.recorded
                    assert not graph or (taken and taken._recording), "not recorded"
                    seconds = timed_steps(bench, session, 1 if bench.tiny else 15)
                    figures["recorded ms" if graph else "ms"] = round(1e3 * seconds, 2)
                pairs = list(zip(*losses, strict=True))
                figures["equal losses"] = sum(one == other for one, other in pairs)
                figures["apart"] = max(abs(one - other) for one, other in pairs)
                figures["losses"] = [losses[1][0], losses[1][-1]]
                assert abs(pairs[0][0] - pairs[0][1]) < 1e-3, f"first losses {pairs[0]}"
                assert figures["apart"] < 0.05, f"losses come apart by {figures['apart']}"
    return cases.result()


def _again(step: Any) -> Any:
    step()
    return step


@check("train.no-waiting", "correct", limit=150)
def no_waiting(bench: Bench) -> dict[str, Any]:
    """A step asks the device for the gradient's norm and for nothing else."""
    cases = Cases(bench)
    for name in bench.some(preset_names(), 7):
        for precision in ("bfloat16", "float32") if bench.cuda else ("float32",):
            with cases(f"{name} {precision}"):
                session = preset_session(bench, name, "tiny", precision=precision)
                with session.loader() as loader:
                    batches = loader.iterate(0)
                    for step in range(2):
                        session.stepper(step, next(batches))
                    places = waits(bench, session, next(batches))
                cases.figures[f"{name} {precision}"] = places or "none"
                assert not places or name not in _MUST_NOT_WAIT, f"it waits at {places}"
    return cases.result()


def waits(bench: Bench, session: Session, batch: Any) -> list[str]:
    """Return the lines at which a step waits for the device, or asks it for a value."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        if bench.cuda:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            session.stepper(2, batch)
        finally:
            if bench.cuda:
                torch.cuda.set_sync_debug_mode("default")
    said = (each for each in told if "synchroniz" in str(each.message))
    return sorted({f"{each.filename.rpartition('coterie/')[2]}:{each.lineno}" for each in said})


WAYS = ("eager", "recorded", "blocks compiled", "blocks compiled, recorded")


def variants(bench: Bench, shape: str, ways: tuple[str, ...]) -> dict[str, Any]:
    """Return the rates of one session, each way of taking its steps in turn."""
    model, windows = shapes(bench)[shape]
    session = session_of(bench, model, windows, precision="bfloat16")
    steps = 1 if bench.tiny else 8
    peak = 1e12 * product_rate(bench, "bfloat16", 256 if bench.tiny else 8192, 4)
    figures: dict[str, Any] = {"ceiling TFLOP/s": round(peak / 1e12, 1)}
    for name in ways:
        if bench.cuda:
            torch.cuda.reset_peak_memory_stats()
        if name == "blocks compiled":
            session.stepper.compiled_blocks = CompiledBlocks(session.decoder)
        session.stepper.recorded = None
        if name.endswith("recorded") and bench.cuda:
            session.stepper.record()
        begin = time.perf_counter()
        timed_steps(bench, session, 1, warm=0)
        first = time.perf_counter() - begin
        figures[name] = rate(session, timed_steps(bench, session, steps), peak)
        figures[name]["first step s"] = round(first, 1)
        if bench.cuda:
            figures[name]["GiB"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        print(f"  {shape}, {name}: {figures[name]}", flush=True)
    return figures


def _check(bench: Bench, wanted: tuple[str, ...], ways: tuple[str, ...] = WAYS) -> dict[str, Any]:
    cases = Cases(bench)
    for shape in wanted:
        if shape not in shapes(bench):
            raise SkipError("presets at full size need a GPU")
        with cases(shape):
            cases.figures[shape] = variants(bench, shape, ways)
        if bench.cuda:
            torch.cuda.empty_cache()
    return cases.result()


@check("speed.steps-large", "speed", limit=200)
def steps_large(bench: Bench) -> dict[str, Any]:
    return _check(bench, ("large",))


@check("speed.steps-small", "speed", limit=150)
def steps_small(bench: Bench) -> dict[str, Any]:
    shapes = ("coarse", "fine", "coarse dense twin", "fine dense twin")
    return _check(bench, shapes, WAYS[:2])


@check("speed.steps-twin", "speed", limit=100)
def steps_twin(bench: Bench) -> dict[str, Any]:
    return _check(bench, ("large dense twin",))


@check("speed.steps-s15era", "speed", limit=150)
def steps_s15era(bench: Bench) -> dict[str, Any]:
    return _check(bench, ("s15era",))


@check("speed.steps-yinggem", "speed", limit=120)
def steps_yinggem(bench: Bench) -> dict[str, Any]:
    return _check(bench, ("yinggem",))


@check("speed.kernels", "speed", limit=120)
def kernels(bench: Bench) -> dict[str, Any]:
    """Step times with each expert kernel, side by side; `auto` has to choose the fastest."""
    cases = Cases(bench)
    wanted = [("coarse", "bfloat16"), ("fine", "bfloat16"), ("large, 2 layers", "bfloat16"),
              ("fine", "float32")]  # fmt: skip
    for shape, precision in bench.some(wanted):
        model, windows = shapes(bench)[shape]
        session = session_of(bench, model, windows, precision=precision)
        for kernel in ("auto", "grouped", "triton", "padded", "loop"):
            name = f"{shape} {precision} {kernel}"
            with cases(name):
                for block in session.decoder.blocks:
                    settings = names.kernel_settings(kernel)
                    block.feedforward.kernel = settings.build()
                seconds = timed_steps(bench, session, 1 if bench.tiny else 5, warm=2)
                cases.figures[name] = {"ms": round(1e3 * seconds, 2)}
    return cases.result()
