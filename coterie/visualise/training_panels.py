"""A run's routing in a terminal: panels of what its record says, each with its formula."""

from collections.abc import Callable

import numpy as np
from rich.console import RenderableType
from rich.text import Text

from coterie.train.events import LayerWatched, RoutingWatched
from coterie.visualise.figures import significant
from coterie.visualise.panel import spark
from coterie.visualise.reducers.watched import Watched
from coterie.visualise.routing import DEAD, HOT
from coterie.visualise.series import Series
from coterie.visualise.tables import Panel
from coterie.visualise.watching import bars, quoted


def load_of_run(series: Series, width: int) -> RenderableType:
    """Return the load of each expert over the whole run and over the latest measurement."""
    layers = series.layers
    if not layers:
        return Text("No load was recorded yet.")
    most = max(layer.load.shape[1] for layer in layers)
    cells = most * 6 + 22 <= width
    table = Panel("Load over all steps, and the latest measured: count · E / Σ count, "
                  "1.00 is fair; ✗ dead (< 0.01), ▲ hot (≥ 2)")  # fmt: skip
    for name in ("layer", "steps"):
        table.add_column(name)
    for expert in range(most) if cells else ():
        table.add_column(str(expert), justify="right", width=5)
    if not cells:
        for name in ("load", "most", "dead and hot"):
            table.add_column(name)
    for layer in layers:
        for name, load in (("all", layer.load.sum(0)), ("latest", layer.load[-1])):
            share = load * len(load) / max(load.sum(), 1)
            flags = ["✗" if each < DEAD else "▲" if each >= HOT else "" for each in share]
            shown: list[str | Text]
            if cells:
                shown = [Text(f"{each:.2f}{flag}", "bold red" if flag else "")
                         for each, flag in zip(share, flags, strict=True)]  # fmt: skip
            else:
                told = [f"{number}{flag}" for number, flag in enumerate(flags) if flag]
                shown = [bars(share, 32), Text(f"{share.max():.2f}"), Text(" ".join(told[:8]))]
            table.add_row(str(layer.layer) if name == "all" else "", name, *shown)
    return table


def _by_layer(
    look: RoutingWatched,
    heading: str,
    names: tuple[str, ...],
    figures: Callable[[LayerWatched], tuple[float | None, ...] | None],
    curve: Callable[[int], np.ndarray],
) -> Panel:
    """Return a row of figures for each layer that has them, and the curve of one over the looks."""
    table = Panel(heading)
    for name in ("layer", *names):
        table.add_column(name, "left" if name == "layer" else "right")
    table.add_column(f"{names[0].partition(',')[0]}, over the looks")
    for layer in look.layers:
        told = figures(layer)
        if told is not None:
            table.add_row(
                str(layer.layer), *map(significant, told), _curve(curve(layer.layer))
            )  # fmt: skip
    return table


def use_of_look(series: Series, look: RoutingWatched) -> RenderableType:
    """Return what experts tell of tokens and places, and how that grew."""
    return _by_layer(
        look, f"Step {look.step:,}, {look.tokens:,} tokens: information of a token’s expert, "
        "in nats, Σ p log (p / p·p); beside it labels dealt at random",
        ("token", "dealt", "place", "dealt"),
        lambda each: (each.token, each.token_null, each.position, each.position_null)
        if each.experts else None,
        lambda layer: series[Watched].curve(layer, "token"),
    )  # fmt: skip


def routers_of_look(series: Series, look: RoutingWatched) -> RenderableType:
    """Return how sure the routers are."""
    return _by_layer(
        look, f"Routers at step {look.step:,}: margin = least ranked score selected − best one "
        "not; entropy = −Σ s log s / log E (1: undecided)",
        ("margin, median", "10 %", "entropy"),
        lambda each: (each.margin, each.margin_low,
                      each.entropy / max(float(np.log(len(each.experts))), 1e-9))
        if each.experts and each.entropy is not None else None,
        lambda layer: series[Watched].curve(layer, "margin"),
    )  # fmt: skip


def stream_of_look(series: Series, look: RoutingWatched) -> RenderableType:
    """Return the norms of the residual stream and of what each branch returned."""
    return _by_layer(
        look, f"Residual stream at step {look.step:,}: mean ‖x‖ after each layer, and mean ‖·‖ "
        "of what each branch returned", ("‖x‖", "attention", "experts/MLP"),
        lambda each: (each.residual, each.attention, each.feedforward),
        lambda layer: series[Watched].curve(layer, "residual"),
    )  # fmt: skip


def card_of_look(series: Series, layer: LayerWatched, expert: int) -> RenderableType:
    """Return the card of an expert at a look."""
    watched, card = series[Watched], layer.experts[expert]
    table = Panel(f"Expert {layer.layer}:{expert}, a hypothesis: lift = its share of the token’s "
                  "weight over its share of all (none: 1.0)")  # fmt: skip
    table.show_header = False
    table.add_column(style="dim")
    table.add_column()
    share = layer.load[expert] * len(layer.load) / max(sum(layer.load), 1)
    favourites = [f"{quoted(watched.word(token))} ×{lift:.1f} (n={seen:,})"
                  for token, seen, lift in card.favourites]  # fmt: skip
    partners = [f"{layer.layer}:{other} ×{lift:.2f}" for other, lift in card.partners]
    table.add_row("load, weight", f"{share:.2f}, {card.weight:.2f} (fair: 1.00)")
    table.add_row("favourite tokens", "  ".join(favourites) or "none read three times or more")
    table.add_row("together with", "  ".join(partners) or "–")
    table.add_row("mean place", f"{card.position:.2f} (even: 0.50)")
    return table


def _curve(values: np.ndarray) -> str:
    """Return a row of bars, and the first and the latest value."""
    known = [float(value) for value in values if np.isfinite(value)]
    if not known:
        return ""
    return f"{spark(known, 16)} {significant(known[0])} → {significant(known[-1])}"
