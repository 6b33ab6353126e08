"""Learning rate, gradients and updates by part, speed, memory and auxiliary losses."""

import numpy as np

from coterie.foundation.printable import printable
from coterie.visualise.charts import Chart, Line
from coterie.visualise.reducers.course import Course
from coterie.visualise.reducers.curves import Curves, smooth
from coterie.visualise.reducers.parts import Parts
from coterie.visualise.reducers.steps import Steps
from coterie.visualise.sections.loss import by_name, resume_marks
from coterie.visualise.sections.section import Section
from coterie.visualise.series import Series


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
