"""What a run would be, printed before it is one: settings and their origin, counts, time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from coterie.cli.console import facts
from coterie.foundation.layers import Resolved, leaves

if TYPE_CHECKING:
    from coterie.train.plan import Plan
    from coterie.train.settings import RunSettings


def plan_as_json(resolved: Resolved[RunSettings]) -> dict[str, Any]:
    """Return plan, settings and the origin of every value as JSON values."""
    from coterie.api.planning import make_plan

    settings = resolved.settings.model_dump(mode="json")
    return {
        "plan": make_plan(resolved.settings).summary(),
        "settings": settings,
        "origins": {".".join(key): resolved.origin(key) for key, _ in leaves(settings)},
    }


def print_plan(resolved: Resolved[RunSettings], console: Console) -> None:
    """Print plan, settings and origins for people."""
    from coterie.api.planning import make_plan

    plan = make_plan(resolved.settings)  # first: it fails before anything is printed
    for key, value, origin in settings_rows(resolved):
        style = "dim" if origin == "default" else ""
        line = Text(f"{key} = {value}", style)
        if origin != "default":
            line.append(f"  # {origin}", "dim")
        console.print(line, soft_wrap=True)
    console.print()
    console.print(facts(plan_rows(plan)))


def settings_rows(resolved: Resolved[RunSettings]) -> Iterator[tuple[str, Any, str]]:
    """Yield (key, value, origin) of every setting."""
    for key, value in leaves(resolved.settings.model_dump(mode="json")):
        yield ".".join(key), value, _origin(resolved, key)


def _origin(resolved: Resolved[RunSettings], key: tuple[str, ...]) -> str:
    """Return the origin of a value, or of the part that was named as a whole."""
    for length in range(len(key), 0, -1):
        if key[:length] in resolved.provenance:
            return resolved.provenance[key[:length]]
    return "default"


def plan_rows(plan: Plan) -> Iterator[tuple[str, str]]:
    """Yield what a plan says as (name, text)."""
    share = plan.active_parameters / plan.parameters
    yield "parameters", f"{plan.parameters:,}"
    yield "active per token", f"{plan.active_parameters:,} ({share:.0%})"
    yield "vocabulary", f"{plan.vocab_size:,}"
    yield "tokens per step", f"{plan.tokens_per_step:,}"
    if plan.epochs is not None:
        unknown = "how many steps is known when the data are prepared"
        of = unknown if plan.steps is None else f"{plan.steps // plan.epochs:,} steps each"
        yield "epochs", f"{plan.epochs:,}, {of}"
    if plan.steps is not None and plan.total_tokens is not None:
        yield "steps", f"{plan.steps:,}"
        yield "tokens in all", f"{plan.total_tokens:,}"
    if plan.lengths:
        yield "length of rows", plan.lengths
    parts = ", ".join(f"{name} {shown_bytes(size)}" for name, size in plan.memory.items())
    yield "memory, about", f"{shown_bytes(plan.memory_bytes)} ({parts})"
    yield "operations per step", f"{plan.flops_per_step / 1e9:,.1f} GFLOP"
    yield "device", f"{plan.device}, {plan.precision}: {plan.precision_reason}"
    if plan.seconds is not None and plan.peak_flops is not None:
        yield "time, about", f"{_duration(plan.seconds)} ({plan.peak_flops / 1e9:,.0f} GFLOP/s)"


def shown_bytes(size: float) -> str:
    """Return a size in the unit that suits it."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
