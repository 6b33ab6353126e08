"""Memory by part, of the steps that `--memory-profile` watched."""

from html import escape

import numpy as np

from coterie.foundation.printable import printable
from coterie.visualise.charts import Chart
from coterie.visualise.memory import HEAD, memory_rows, memory_title
from coterie.visualise.page import table
from coterie.visualise.reducers.course import Course
from coterie.visualise.reducers.memory import MemoryByPart
from coterie.visualise.sections.loss import by_name, resume_marks
from coterie.visualise.sections.section import Section
from coterie.visualise.series import Series

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
