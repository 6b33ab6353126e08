"""What each expert is used for, as `coterie evaluate RUN routing` measured it and kept it."""

from collections.abc import Iterator
from html import escape
from typing import Any

import numpy as np

from coterie.foundation.errors import UserError
from coterie.foundation.printable import printable
from coterie.foundation.records import parse_json
from coterie.foundation.runs import RunDirectory
from coterie.visualise.charts import Chart, Line, layer_colour
from coterie.visualise.figures import significant
from coterie.visualise.page import folded, table
from coterie.visualise.pixels import levels_of_share, picture

TITLE = "What each expert is worth"
_KINDS = ("token", "position", "domain", "domain_given_token", "language", "language_given_token",
          "speaker", "speaker_given_token")  # fmt: skip


def uses_section(run: RunDirectory) -> str:
    """Return what was kept of a run's routing as HTML; empty where nothing was asked."""
    if not run.routing.is_file():
        return ""
    try:
        told = parse_json(run.routing.read_bytes(), str(run.routing))
        return "".join(_parts(told))
    except (OSError, UserError, KeyError, TypeError, ValueError, AttributeError) as error:
        words = printable(f"{run.routing.name} cannot be shown: {error}", keep="")
        return f'<p class="note">{escape(words)}</p>'


def _parts(told: dict[str, Any]) -> Iterator[str]:
    layers, domains = told["layers"], list(told["domains"])
    seen = "; ".join(f"{name}: {count:,} tokens" for name, count in told["domains"].items())
    words = printable(f"At step {told['step']:,}, of {seen}.", keep="")
    yield f'<p class="note">{escape(words)}</p>'
    kinds = [kind for kind in _KINDS if any(layer.get(kind) for layer in layers)]
    yield table(
        "What a token’s expert tells, nats: mutual information (mean of "
        f"{told['permutations']} deals of the labels at random; share of deals that give as much)",
        ("layer", "utilised", "H(expert)", *(each.replace("_given_token", " | token")
                                             for each in kinds)),
        [(f"layer {layer['layer']}", f"{layer['utilisation']:.1%}",
          significant(layer["expert_entropy"]), *(_information(layer.get(each)) for each in kinds))
         for layer in layers],
    )  # fmt: skip
    yield _saturation(told)
    maps = "".join(map(_pairs, layers))
    yield f'<div class="grid">{maps}</div>' if maps else ""
    rows = [
        (f"{row['layer']}:{row['expert']}", f"{row['load']:.2f}", f"{row['weight']:.2f}",
         *(f"×{row['domains'][name]:.2f}  {(row['masked'] or {}).get(name, float('nan')):+.4f}"
           for name in domains))
        for layer in layers for row in layer["experts"]
    ]  # fmt: skip
    caption = (
        "Load and weight (fair: 1.00); of each domain the expert’s share over its share of all "
        "(none: ×1.00), and what the domain’s mean loss gains when it is masked, nats a token"
    )
    yield folded("Each expert", table(caption, ("expert", "load", "weight", *domains), rows))


def _information(told: dict[str, float] | None) -> str:
    if told is None:
        return "–"
    return f"{told['nats']:.3f} ({told['null']:.3f}; p {told['p']:.2f})"


def _saturation(told: dict[str, Any]) -> str:
    rows, layers = told["saturation"], told["layers"]
    if len(rows) < 2:
        return ""
    steps, lines = np.array([row["step"] for row in rows], float), []
    for place, layer in enumerate(layers):
        colour, name = layer_colour(place, len(layers)), f"layer {layer['layer']}"
        shares = np.array([row["layers"][str(layer["layer"])] for row in rows])
        lines.append(Line(name, steps, shares, colour, dots=True))
        even = np.full(len(rows), layer["saturation_even"])
        lines.append(Line(f"{name}, even", steps, even, colour, faint=True))
    return Chart(
        "Saturation", "share of a token’s experts at the last checkpoint that it had at this one",
        lines, base=0.0, wide=True, note="Pale: routers that know nothing of each other, k / E.",
    ).html()  # fmt: skip


def _pairs(layer: dict[str, Any]) -> str:
    """Return the pairs of a layer's experts as a picture."""
    together = np.array([[np.nan if each is None else each for each in row]
                         for row in layer["together"]], float)  # fmt: skip
    if not layer["together_even"]:
        return ""
    return (
        f"<figure><figcaption><b>Layer {layer['layer']}</b> <span>pairs of experts selected "
        "together, over equally likely sets: warm more often, cool less</span></figcaption>"
        f'<div class="map" style="height:{max(48, min(12 * len(together), 240))}px"><img alt="" '
        f'src="{picture(levels_of_share(together / layer["together_even"]))}"></div></figure>'
    )
