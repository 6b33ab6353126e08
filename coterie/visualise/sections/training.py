"""Curves of training: losses, optimiser and speed, gradients by part, memory by part."""

from collections.abc import Mapping
from html import escape

import numpy as np

from coterie.foundation.printable import printable
from coterie.visualise.charts import PALETTE, Chart, Line
from coterie.visualise.figures import duration, percent, size, split_name
from coterie.visualise.memory import HEAD, memory_rows, memory_title
from coterie.visualise.page import table
from coterie.visualise.reducers.course import Course, Evaluations
from coterie.visualise.reducers.curves import Curves, smooth
from coterie.visualise.reducers.reinforcement import Reinforcement
from coterie.visualise.reducers.steps import MemoryByPart, Parts, Processes, Steps
from coterie.visualise.sections.section import Section
from coterie.visualise.series import Series


def loss_section(series: Series) -> str:
    curves = series[Steps].curves
    lines = []
    if not len(series[Reinforcement].rollouts):  # else it is near zero by construction
        lines = [
            Line("each step", *curves.extremes("loss"), faint=True),
            Line("training", curves.steps, series.smoothed),
        ]
    for colour, (split, found) in zip(PALETTE[1:], series.evaluations.items(), strict=False):
        x = np.array([e.step for e in found])
        lines.append(
            Line(split_name(split), x, np.array([e.loss for e in found]), colour, dots=True)
        )
    note = "Pale: each step. Line: its running mean. Dots: the whole held-out split."
    model = series.settings().get("model")
    if isinstance(model, dict) and model.get("ngram"):
        note += " Training is of the network alone, validation with its counted n-grams."
    whole = Chart(
        "Training and validation", "nats per token", lines, log=True, wide=True, digits=4,
        marks=resume_marks(series),
        note=note,
    ).html()  # fmt: skip
    sources = {name: smooth(values) for name, values in series[Steps].sources.items()}
    parts = Chart(
        "Training loss by source", "nats per token, running mean", by_name(curves.steps, sources),
        log=True, wide=True, digits=4,
    ).html()  # fmt: skip
    return whole + parts


def by_name(steps: np.ndarray, curves: Mapping[str, np.ndarray]) -> list[Line]:
    """Return a line in a colour of its own for each curve."""
    return [
        Line(name, steps, values, PALETTE[number % len(PALETTE)])
        for number, (name, values) in enumerate(curves.items())
    ]


def resume_marks(series: Series) -> list[tuple[float, str]]:
    """Return the marks of a chart over steps that show where the run was resumed."""
    return [(float(step), "resumed") for step in series.resumes]


LOSS = Section("loss", "Loss", (Steps, Evaluations, Course, Reinforcement), loss_section)


_LINES = 6  # parts with a line of their own; with all and the others each has its colour


def memory_section(series: Series) -> str:
    memory = series[MemoryByPart]
    curves, parts = memory.curves, list(memory.parts.items())
    if not parts:
        return ""
    shown = {"all parts": curves["peak"] / 1e6} | {
        name: values / 1e6 for name, values in parts[:_LINES]
    }
    if parts[_LINES:]:
        others = np.nansum([values for _, values in parts[_LINES:]], axis=0)
        shown[f"{len(parts) - _LINES} others"] = others / 1e6
    chart = Chart(
        "Memory by part", "the most in any pass of a watched step, MB",
        by_name(curves.steps, shown),
        base=0.0, wide=True, marks=resume_marks(series),
        note="All parts: together, at the step's peak. Parts peak in different passes, so "
        "theirs may add up to more.",
    ).html()  # fmt: skip
    if memory.last is None:
        return chart
    snapshot = memory.last.snapshot
    note = "" if snapshot is None else (
        f'<p class="note">{escape(printable(snapshot))} is what the allocator did in this step, '
        "for https://pytorch.org/memory_viz.</p>"
    )  # fmt: skip
    return chart + table(memory_title(memory.last), HEAD, memory_rows(memory.last)) + note


MEMORY = Section("memory", "Memory", (MemoryByPart, Course), memory_section)


def optimizer_section(series: Series) -> str:
    curves, marks = series[Steps].curves, resume_marks(series)
    rate = Line("rate", curves.steps, curves["learning_rate"])
    charts = [
        Chart("Learning rate", "per step", [rate], base=0.0),
        Chart("Gradient norm", "before clipping", _with_mean("norm", curves, "gradient_norm"),
              log=True, marks=marks),
        Chart("Speed", "tokens per second", _with_mean("tokens/s", curves, "tokens_per_second"),
              base=0.0, marks=marks),
        Chart("Model FLOPs utilisation", "per cent of the machine's measured peak",
              _with_mean("MFU", curves, "mfu", 100.0), base=0.0),
    ]  # fmt: skip
    if np.isfinite(curves["memory"]).any():
        memory = Line("memory", curves.steps, curves["memory"] / 1e6)
        charts.append(Chart("Memory", "peak, MB", [memory], base=0.0))
    for name, values in series[Steps].auxiliary.items():
        if not values[np.isfinite(values)].any():  # a loss that is switched off
            continue
        title = printable(name).replace("_", " ")
        lines = _with_mean(title, curves, f"auxiliary/{name}")
        charts.append(Chart(title, "auxiliary, nats", lines))
    parts = series[Parts]
    wide = [
        Chart(title, unit, by_name(parts.curves.steps, found), log=True, wide=True, marks=marks)
        for title, unit, found in (
            ("Gradient norm by part", "before clipping", parts.gradients),
            ("Update by part", "norm of the update over the weights'", parts.updates),
        )
    ]
    grid = "".join(chart.html() for chart in charts)
    return f'<div class="grid">{grid}</div>{"".join(chart.html() for chart in wide)}'


def _with_mean(label: str, curves: Curves, name: str, scale: float = 1.0) -> list[Line]:
    """Return a curve with each step's value, pale, and its running mean."""
    steps, values = curves.extremes(name)
    return [
        Line("each step", steps, scale * values, faint=True),
        Line(label, curves.steps, scale * smooth(curves[name])),
    ]


OPTIMIZER = Section("optimizer", "Optimiser and speed", (Steps, Parts, Course), optimizer_section)


def processes_section(series: Series) -> str:
    processes = series[Processes]
    last = processes.last
    if last is None:
        return ""
    steps, waits = processes.curves.steps, processes.curves.under("rank ")
    chart = Chart(
        "Waiting", "per cent of each process's time in messages",
        by_name(steps, {f"rank {rank}": 100 * values for rank, values in waits.items()}),
        base=0.0, wide=True, marks=resume_marks(series),
        note="All take the same time for a step: the one that waits least is waited for.",
    ).html()  # fmt: skip
    rows = [
        (f"rank {each.rank}{' (waited for)' if each.rank == last.straggler else ''}",
         duration(each.seconds), percent(each.waiting),
         size(each.memory_bytes))
        for each in last.ranks
    ]  # fmt: skip
    title = f"Processes over {last.steps:,} steps up to step {last.step:,}"
    known = any(each.waiting is not None for each in last.ranks)
    return chart * known + table(title, ("process", "a step", "waiting", "memory, peak"), rows)


PROCESSES = Section("processes", "Processes", (Processes, Course), processes_section)
