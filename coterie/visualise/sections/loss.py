"""The loss curves, with marks where the run was resumed."""

from collections.abc import Mapping

import numpy as np

from coterie.visualise.charts import PALETTE, Chart, Line
from coterie.visualise.figures import split_name
from coterie.visualise.reducers.course import Course
from coterie.visualise.reducers.curves import smooth
from coterie.visualise.reducers.quality import Evaluations
from coterie.visualise.reducers.steps import Steps
from coterie.visualise.sections.section import Section
from coterie.visualise.series import Series


def loss_section(series: Series) -> str:
    curves = series[Steps].curves
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


LOSS = Section("loss", "Loss", (Steps, Evaluations, Course), loss_section)
