"""Whether to compile a run's decoder, decided by what it gains over the steps that are left.

Compiled code is kept in the cache folder (Inductor's own cache, which knows when it is stale), so
that compiling again takes a fraction of the first time: 56 s and then 11 for `quickstart` on two
busy cores, most of the rest being tracing.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from coterie.foundation.compiled import reason
from coterie.foundation.errors import SettingsError
from coterie.foundation.runs import cache_root
from coterie.train.choices import remember, remembered
from coterie.train.settings import RunSettings, TrainSettings
from coterie.train.turns import Clock, in_turns, ratio

_SECONDS = 2.0
_CHEAPEST = 20.0  # seconds; less than any decoder was compiled in for the first time
_RECORDING = ("reduce-overhead", "max-autotune")  # modes that record CUDA graphs themselves
_MOST_GAIN = 0.5  # of a step, more than compiling was seen to save
_AGAIN = 0.25  # of the first time, until it was measured


@dataclass(frozen=True)
class CompileChoice:
    """Whether to compile, and a sentence on why, where there was something to decide."""

    compile: bool
    reason: str | None = None


def keep_compiled_code() -> None:
    """Let what is compiled in this process be kept for the next, in our cache folder."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_root() / "compiled"))


def give_up_compiling() -> None:
    """Forget what is compiled, and drop what waits to be; a compiler at work ends its file."""
    torch.compiler.reset()
    with contextlib.suppress(Exception):  # Inductor's own, and its names may change
        pool = importlib.import_module("torch._inductor.async_compile").AsyncCompile.pool
        if pool.cache_info().currsize:
            pool().shutdown(wait=False, cancel_futures=True)
            pool.cache_clear()


def missing_compiler(device: torch.device) -> str | None:
    """Return why nothing can be compiled for a device; None: it can."""
    if device.type != "cpu":
        found = importlib.util.find_spec("triton") is not None
        return None if found else f"Triton, which code for {device.type} needs, is not installed"
    try:  # only now: importing the compiler takes seconds
        importlib.import_module("torch._inductor.cpp_builder").get_cpp_compiler()
    except Exception:  # InvalidCxxCompiler; an older or newer torch may call it otherwise
        return "there is no C++ compiler"
    return None


def require_compiler(device: torch.device) -> None:
    """Refuse to compile where that is impossible, before anything is done.

    Raises:
        SettingsError: there is no compiler.
    """
    if missing := missing_compiler(device):
        raise SettingsError(
            f"train.compile=true cannot be done: {missing}.",
            hint="Install one (g++ or clang++; pip install triton for a GPU), or use "
            "train.compile=auto, which goes without.",
        )


def require_one_recording(train: TrainSettings, device: torch.device) -> None:
    """Refuse a mode of compiling that records CUDA graphs where steps are recorded anyway.

    Raises:
        SettingsError: both are asked for.
    """
    both = train.compile is not False and train.cuda_graph and train.compile_mode in _RECORDING
    if both and device.type == "cuda":
        raise SettingsError(
            f"train.compile_mode={train.compile_mode} records CUDA graphs itself, and so does "
            "train.cuda_graph=true.",
            hint="Set train.cuda_graph=false, or train.compile_mode=max-autotune-no-cudagraphs.",
        )


def choose_compile(
    settings: RunSettings,
    device: torch.device,
    eager: Callable[[], object],
    compiled: Callable[[], object],
    clock: Clock = time.perf_counter,
) -> CompileChoice:
    """Return whether compiling saves more time than it takes.

    Args:
        settings: the run's, vocabulary included.
        device: where it computes.
        eager: computes a micro-batch as it is.
        compiled: the same, compiled at its first call.
        clock: seconds since some moment.
    """
    if missing := missing_compiler(device):
        return CompileChoice(False, f"not compiled: {missing}")
    passes = settings.train.steps * settings.train.gradient_accumulation
    known = remembered("compile", settings, device, None)
    if known is None:
        eager()
        alone = in_turns({"eager": eager}, 0.5, clock)["eager"]
        whole = statistics.median(alone) * passes
        if whole * _MOST_GAIN < _CHEAPEST:
            return CompileChoice(
                False, f"not compiled: the steps take {whole:,.0f} s in all, too few to gain "
                "what compiling takes",
            )  # fmt: skip
        try:
            known = _measure(eager, compiled, clock)
        except Exception as error:  # Inductor's failures have no common class
            return CompileChoice(False, f"not compiled, for that failed: {reason(error)}")
        remember("compile", settings, device, known)
        return _weighed(known, passes, spent=True)
    choice = _weighed(known, passes, spent=False)
    if choice.compile and "again" not in known:
        with contextlib.suppress(Exception):  # what fails here fails, and is told, in training
            again = {"again": _first(compiled, known["compiled"], clock)}
            remember("compile", settings, device, {**known, **again})
    return choice


def _measure(
    eager: Callable[[], object], compiled: Callable[[], object], clock: Clock
) -> dict[str, float]:
    took = _first(compiled, 0.0, clock)
    taken = in_turns({"eager": eager, "compiled": compiled}, _SECONDS, clock, least=2)
    typical = statistics.median(taken["eager"])
    faster = typical / ratio(taken["eager"], taken["compiled"])
    return {"eager": typical, "compiled": faster, "compiling": max(took - faster, 0.0)}


def _first(compiled: Callable[[], object], usual: float, clock: Clock) -> float:
    begin = clock()
    compiled()
    return max(clock() - begin - usual, 0.0)


def _weighed(known: dict[str, float], passes: int, *, spent: bool) -> CompileChoice:
    """Return the choice: what was spent on compiling in this very run counts no more."""
    gain = (known["eager"] - known["compiled"]) * passes
    cost = known.get("again", known["compiling"] * (1.0 if spent else _AGAIN))
    told = (
        f"compiled, a micro-batch takes {1e3 * known['compiled']:,.0f} ms instead of "
        f"{1e3 * known['eager']:,.0f}, which gains {gain:,.0f} s over {passes:,} of them; "
        f"compiling {'took' if spent else 'takes about'} {cost:,.0f} s"
    )
    chosen = gain > (0.0 if spent else cost)
    return CompileChoice(chosen, f"{'' if chosen else 'not '}compiled: {told}")
