"""Load per expert over time, layer by layer: strips of colour, and the latest load as a table."""

from collections.abc import Sequence
from html import escape

import numpy as np

from coterie.visualise.axis import Axis, tick_text
from coterie.visualise.figures import count, significant, times
from coterie.visualise.pixels import levels_of_share, packed, picture
from coterie.visualise.reducers.loads import LayerHistory

SHARE_SCALE = 50  # a byte holds a share from 0 to 5.1 in steps of 0.02
_WIDEST_TABLE = 16  # experts whose shares are written out


def load_strips(layers: Sequence[LayerHistory]) -> str:
    """Return a strip per layer: experts from top to bottom, time from left to right."""
    strips = []
    for layer in layers:
        binned = layer.binned()
        words = (
            f"Layer {layer.layer}: load of {layer.load.shape[1]} experts over time. At the end the "
            f"busiest has {times(float(binned.imbalance[-1]))} its even share, "
            f"{int(layer.dead[-1])} received no token."
        )
        strips.append(
            _strip(
                layer,
                binned.steps,
                levels_of_share(binned.share),
                packed(binned.share, SHARE_SCALE),
                f"1/{SHARE_SCALE},0",
                words,
                times(float(binned.imbalance[-1])),
            )
        )
    legend = _legend("half its share", "even", "twice its share or more")
    return _figure(
        "Load per expert",
        "tokens received, relative to an even share; beside each layer its busiest expert, last",
        legend,
        strips,
        layers,
    )


def bias_strips(layers: Sequence[LayerHistory]) -> str:
    """Return a strip per layer of the selection bias, or nothing where no router has one."""
    biased = [layer for layer in layers if layer.bias is not None]
    if not biased:
        return ""
    largest = max(float(np.abs(b).max()) for x in biased if (b := x.bias) is not None) or 1.0
    strips = []
    for layer in biased:
        binned = layer.binned()
        assert binned.bias is not None, "only layers with a bias are here"
        level, last = binned.bias / largest, binned.bias[-1]
        words = (
            f"Layer {layer.layer}: selection bias over time, at the end from "
            f"{significant(float(last.min()))} to {significant(float(last.max()))}."
        )
        strips.append(
            _strip(
                layer,
                binned.steps,
                level,
                packed(level, 127, 127),
                f"{largest / 127!r},127",
                words,
                significant(float(np.ptp(last)), 2),
            )
        )
    bound = significant(largest, 2)
    legend = _legend(f"−{bound}: held back", "0", f"+{bound}: preferred")
    return _figure(
        "Selection bias",
        "added to the router's scores when experts are chosen; beside each layer its range, last",
        legend,
        strips,
        biased,
    )


def latest_table(layers: Sequence[LayerHistory]) -> str:
    """Return the latest measurement, layers by experts, as a table of shares."""
    most = max(layer.load.shape[1] for layer in layers)
    if most > _WIDEST_TABLE:
        return ""
    head = "".join(f'<th scope="col">{n}</th>' for n in range(most))
    rows = []
    for layer in layers:
        share = layer.share[-1]
        cells = "".join(
            f'<td class="{"over" if s >= 1 else "under"}" style="--t:{abs(t):.2f}">{s:.2f}</td>'
            for s, t in zip(share, levels_of_share(share), strict=True)
        )
        cells += "<td></td>" * (most - len(share))
        rows.append(
            f'<tr><th scope="row">layer {layer.layer}</th>{cells}'
            f"<td>{times(float(share.max()))}</td>"
            f"<td>{int(layer.dead[-1])}</td><td>{count(int(layer.dropped[-1]))}</td>"
            f"<td>{significant(float(layer.indecision[-1]), 2)}</td></tr>"
        )
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Latest load per expert">'
        '<table class="load"><caption>Latest load at step '
        f"{int(layers[0].steps[-1]):,}: tokens received over an even share</caption>"
        f'<thead><tr><th scope="col">expert</th>{head}<th scope="col">max / mean</th>'
        '<th scope="col">dead</th><th scope="col">dropped</th>'
        '<th scope="col">entropy</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _strip(
    layer: LayerHistory, steps: np.ndarray, levels: np.ndarray,
    values: str, decode: str, words: str, beside: str,
) -> str:  # fmt: skip
    """Return one layer's strip. The page's script shows (byte − offset) × scale on hovering."""
    experts = levels.shape[1]
    height = max(24, min(96, experts * max(3, 10 - experts // 8)))
    return (
        f'<div class="strip"><span class="name">layer {layer.layer}</span>'
        f'<div class="map" style="height:{height}px" role="img" aria-label="{escape(words)}"'
        f' data-experts="{experts}" data-decode="{decode}" data-values="{values}"'
        f' data-steps="{",".join(str(s) for s in steps.tolist())}">'
        f'<img alt="" src="{picture(levels.T)}"></div><span class="beside">{beside}</span></div>'
    )


def _figure(
    title: str, unit: str, legend: str, strips: list[str], layers: Sequence[LayerHistory]
) -> str:
    """Return the strips under one title, with the steps written below the last."""
    # A column covers the steps after its predecessor's, up to its own.
    edges = np.maximum.accumulate(np.concatenate([[0], layers[0].binned().steps]))
    wanted = [tick for tick in Axis(0.0, float(edges[-1])).ticks(5) if tick == round(tick)]
    columns = np.interp(wanted, edges, np.arange(len(edges)))
    labels = "".join(
        f'<span class="x-tick" style="left:{100 * column / (len(edges) - 1):.2f}%">'
        f"{tick_text(tick, wanted)}</span>"
        for tick, column in zip(wanted, columns.tolist(), strict=True)
    )
    return (
        '<figure class="chart wide heat">'
        f"<figcaption><b>{title}</b> <span>{unit}</span></figcaption>{legend}"
        f'{"".join(strips)}<div class="strip"><span></span><div class="axis">{labels}'
        '<span class="x-name">step</span></div></div></figure>'
    )


def _legend(low: str, middle: str, high: str) -> str:
    return (
        f'<p class="legend"><span>{low}</span><i class="ramp" aria-hidden="true"></i>'
        f"<span>{high}</span><span class='visually-hidden'>; clear means {middle}</span></p>"
    )
