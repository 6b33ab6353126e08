"""Speed of what a run can choose: a compiled decoder, the expert computation, the attention."""

from __future__ import annotations

from typing import Any

from gpu_checks import names
from gpu_checks.registry import Bench, Cases, SkipError, check
from gpu_checks.speed import check_training, large, session_of, shapes, timed_steps


@check("compile.train-large", "compiled", limit=240)
def warm_large(bench: Bench) -> dict[str, Any]:
    """Compile the large shapes and take a step, which fills the compiler's caches for the speed."""
    cases = Cases(bench)
    for shape in bench.some(("large", "large dense twin")):
        with cases(shape):
            model, windows = shapes(bench)[shape]
            session = session_of(bench, model, windows, compile=True)
            cases.figures[shape] = {"s": round(timed_steps(bench, session, 1, warm=0), 1)}
            del session
    return cases.result()


@check("speed.train-large-compiled", "speed", limit=150)
def train_large_compiled(bench: Bench) -> dict[str, Any]:
    return check_training(bench, ("large", "large dense twin"), compile=True)


@check("speed.train-presets-compiled", "speed", limit=200)
def train_presets_compiled(bench: Bench) -> dict[str, Any]:
    if bench.tiny:
        raise SkipError("presets at full size need a GPU")
    return check_training(bench, ("s15era", "s15era dense twin", "yinggem"), compile=True)


@check("speed.experts", "speed", limit=90)
def experts(bench: Bench) -> dict[str, Any]:
    """Step times of each expert computation; `auto` has to choose the fastest."""
    cases = Cases(bench)
    for shape in bench.some(("coarse", "fine", "large, 2 layers")):
        for compute in ("auto", "grouped", "padded", "loop"):
            with cases(f"{shape} {compute}"):
                model, windows = shapes(bench)[shape]
                model = model | {"feedforward": model["feedforward"] | {"kernel": compute}}
                session = session_of(bench, model, windows)
                seconds = timed_steps(bench, session, 1 if bench.tiny else 5, warm=2)
                cases.figures[f"{shape} {compute}"] = {"ms": round(1e3 * seconds, 2)}
                del session
    return cases.result()


@check("speed.attention", "speed", limit=120)
def attention(bench: Bench) -> dict[str, Any]:
    """Step times of attention back ends: windows of 4,096 tokens, with and without a window."""
    cases = Cases(bench)
    for window in bench.some((512, None)):
        for backend in ("auto", "sdpa", "flex", "blocked", "dense"):
            if backend == "flex" and not bench.cuda:
                continue
            name = f"window {window} {backend}"
            with cases(name):
                model = large(bench, names.dense(64 if bench.tiny else 4096))
                heads = model["attention"] | {"backend": backend, "window": window}
                context = 64 if bench.tiny else 4096
                model = model | {"attention": heads, "layers": 2, "context": context}
                session = session_of(bench, model, 2)
                seconds = timed_steps(bench, session, 1 if bench.tiny else 5, warm=2)
                cases.figures[name] = {"ms": round(1e3 * seconds, 2)}
                del session
    return cases.result()
