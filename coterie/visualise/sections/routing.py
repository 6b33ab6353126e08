"""What experts are used for while a run trains, as looks into its steps saw it."""

from coterie.visualise.charts import Chart, Line, layer_colour
from coterie.visualise.figures import significant
from coterie.visualise.page import folded, table
from coterie.visualise.reducers.watched import Watched
from coterie.visualise.sections.section import Section
from coterie.visualise.sections.training import resume_marks
from coterie.visualise.series import Series
from coterie.visualise.watching import quoted

_CHARTS = (
    ("Experts and tokens", "information of a token’s expert on what it is, nats", "token"),
    ("Experts and places", "the same on the eighth of the window it is in, nats", "position"),
    ("Margin", "least ranked score selected less the best one not; median", "margin"),
    ("Residual stream", "mean norm after each layer", "residual"),
    ("Attention adds", "mean norm of what the branch returned", "attention"),
    ("Experts or MLP add", "mean norm of what the branch returned", "feedforward"),
)


def routing_section(series: Series) -> str:
    """Return how experts specialise, and a card of each at the latest look."""
    watched = series[Watched]
    if watched.last is None:
        return ""
    marks, steps = resume_marks(series), watched.curves.steps
    layers, charts = watched.last.layers, []
    for title, unit, name in _CHARTS:
        lines = []
        for place, layer in enumerate(layers):
            colour = layer_colour(place, len(layers))
            values = watched.curve(layer.layer, name)
            lines.append(Line(f"layer {layer.layer}", steps, values, colour))
            if name in ("token", "position"):
                null = watched.curve(layer.layer, f"{name}_null")
                lines.append(Line(f"layer {layer.layer}, dealt", steps, null, colour, faint=True))
        note = "Pale: the same labels dealt at random." if name in ("token", "position") else ""
        charts.append(Chart(title, unit, lines, base=0.0 if name != "margin" else None,
                            marks=marks, note=note).html())  # fmt: skip
    return f'<div class="grid">{"".join(charts)}</div>{_cards(watched)}'


def _cards(watched: Watched) -> str:
    last = watched.last
    assert last is not None
    rows = [
        (
            f"{layer.layer}:{number}", significant(expert.weight), significant(expert.position),
            "  ".join(f"{quoted(watched.word(token))} ×{lift:.1f} (n={seen:,})"
                      for token, seen, lift in expert.favourites) or "–",
            "  ".join(f"{layer.layer}:{other} ×{lift:.2f}" for other, lift in expert.partners),
        )
        for layer in watched.routed for number, expert in enumerate(layer.experts)
    ]  # fmt: skip
    head = ("expert", "weight (fair: 1)", "place (even: 0.5)", "tokens by lift", "together with")
    caption = (
        f"Hypotheses about experts at step {last.step:,}, of {last.tokens:,} tokens: lift is the "
        "expert’s share of a token’s weight over its share of all (none: 1)"
    )
    return folded("What each expert draws", table(caption, head, rows)) if rows else ""


ROUTING = Section("routing", "What experts are used for", (Watched,), routing_section)
