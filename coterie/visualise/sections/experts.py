"""The health of routing: load, balance, dead experts, drops, entropy, selection bias and drift."""

from collections.abc import Callable

import numpy as np

from coterie.visualise.charts import Chart, Line, layer_colour
from coterie.visualise.heat import bias_strips, latest_table, load_strips
from coterie.visualise.page import folded
from coterie.visualise.reducers.course import Course
from coterie.visualise.reducers.loads import LayerHistory, Loads
from coterie.visualise.sections.section import Section
from coterie.visualise.sections.training import resume_marks
from coterie.visualise.series import Series


def experts_section(series: Series) -> str:
    layers = series.layers
    if not layers:
        return ""
    marks = resume_marks(series)
    busiest = Chart(
        "Busiest expert", "load over the layer's mean", _lines(layers, lambda x: x.imbalance),
        base=1.0, log=True, wide=True, marks=marks,
    )  # fmt: skip
    dead = _lines(layers, lambda x: x.dead.astype(float) if x.dead.any() else None)
    dropped = _lines(layers, lambda x: _drop_rate(x) if x.dropped.any() else None)
    charts = [
        Chart("Dead experts", "experts without a token", dead, base=0.0).html(),
        Chart("Dropped tokens", "per cent of choices", dropped, base=0.0).html(),
        Chart(
            "Router entropy", "over that of an even choice: 0 certain, 1 undecided",
            _lines(layers, lambda x: x.indecision), marks=marks,
        ).html(),
        Chart(
            "Bias drift", "largest change of a selection bias since the measurement before",
            _lines(layers, lambda x: x.drift), base=0.0, marks=marks,
        ).html(),
    ]  # fmt: skip
    facts = []
    if not dead:
        facts.append("No expert was ever without tokens.")
    if not dropped:
        facts.append("No token was dropped.")
    fact = f'<p class="note">{" ".join(facts)}</p>' if facts else ""
    return (
        f'{load_strips(layers)}{busiest.html()}<div class="grid">{"".join(charts)}</div>{fact}'
        f"{latest_table(layers)}{_bias(layers)}"
    )


def _lines(
    layers: tuple[LayerHistory, ...], values: Callable[[LayerHistory], np.ndarray | None]
) -> list[Line]:
    """Return a line for each layer that has values."""
    found = [(i, layer, values(layer)) for i, layer in enumerate(layers)]
    return [
        Line(f"layer {layer.layer}", layer.steps, y, layer_colour(i, len(layers)))
        for i, layer, y in found
        if y is not None
    ]


def _bias(layers: tuple[LayerHistory, ...]) -> str:
    """Return the selection bias, folded away where it would be long."""
    strips = bias_strips(layers)
    return folded("Selection bias over time", strips) if strips and len(layers) > 6 else strips


def _drop_rate(layer: LayerHistory) -> np.ndarray:
    """Return [N] dropped choices per hundred of all choices made, which the load counts."""
    return 100.0 * layer.dropped / np.maximum(layer.load.sum(axis=1), 1)


EXPERTS = Section("experts", "Experts", (Loads, Course), experts_section)
