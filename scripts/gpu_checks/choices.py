"""Speed of what a run can choose: the back end of its attention."""

from __future__ import annotations

from typing import Any

from gpu_checks import names
from gpu_checks.registry import Bench, Cases, check
from gpu_checks.speed import large, session_of, timed_steps


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
