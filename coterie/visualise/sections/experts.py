"""Load per expert over time, balance, dead experts, dropped tokens and selection bias."""

import numpy as np

from coterie.visualise.charts import Chart, Line, layer_colour
from coterie.visualise.heat import bias_strips, latest_table, load_strips
from coterie.visualise.page import folded
from coterie.visualise.reducers.course import Course
from coterie.visualise.reducers.loads import LayerHistory, Loads
from coterie.visualise.sections.loss import resume_marks
from coterie.visualise.sections.section import Section
from coterie.visualise.series import Series


def experts_section(series: Series) -> str:
    layers = series.layers
    if not layers:
        return ""
    amount = len(layers)
    balance = [
        Line(f"layer {layer.layer}", layer.steps, layer.imbalance, layer_colour(i, amount))
        for i, layer in enumerate(layers)
    ]
    busiest = Chart(
        "Busiest expert", "load over the layer's mean", balance, base=1.0, log=True, wide=True,
        marks=resume_marks(series),
    )  # fmt: skip
    charts = []
    dead = [
        Line(f"layer {layer.layer}", layer.steps, layer.dead.astype(float), layer_colour(i, amount))
        for i, layer in enumerate(layers)
        if layer.dead.any()
    ]
    charts.append(Chart("Dead experts", "experts without a token", dead, base=0.0).html())
    dropped = [
        Line(f"layer {layer.layer}", layer.steps, _drop_rate(layer), layer_colour(i, amount))
        for i, layer in enumerate(layers)
        if layer.dropped.any()
    ]
    charts.append(Chart("Dropped tokens", "per cent of choices", dropped, base=0.0).html())
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


def _bias(layers: tuple[LayerHistory, ...]) -> str:
    """Return the selection bias, folded away where it would be long."""
    strips = bias_strips(layers)
    return folded("Selection bias over time", strips) if strips and len(layers) > 6 else strips


def _drop_rate(layer: LayerHistory) -> np.ndarray:
    """Return [N] dropped choices per hundred of all choices made, which the load counts."""
    return 100.0 * layer.dropped / np.maximum(layer.load.sum(axis=1), 1)


EXPERTS = Section("experts", "Experts", (Loads, Course), experts_section)
