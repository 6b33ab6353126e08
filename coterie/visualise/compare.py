"""Several runs on one page: their figures side by side, curves laid over each other, differences.

Loss is shown against tokens (what was learned from the same data) and against training time (what
it cost); per character where every run tells it, so that tokenizers can be compared.
"""

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import numpy as np

from coterie.foundation.printable import printable
from coterie.foundation.records import to_yaml
from coterie.visualise.charts import PALETTE, Chart, Line
from coterie.visualise.figures import count, duration, loss, percent, times
from coterie.visualise.page import document, emblem, table
from coterie.visualise.reducers.course import Samples
from coterie.visualise.reducers.curves import smooth
from coterie.visualise.reducers.steps import Steps
from coterie.visualise.sections.header import STATUS_WORDS
from coterie.visualise.sections.record import sample_text
from coterie.visualise.series import Series

_MISSING = "–"
_Row = tuple[str, str, Callable[[Any], str], Callable[..., Any] | None]
_ROWS: tuple[_Row, ...] = (  # label, headline figure, how it is written, which of several is best
    ("validation loss, nats per token", "validation_loss", loss, min),
    ("nats per character", "nats_per_character", loss, min),
    ("training loss, smoothed", "training_loss", loss, min),
    ("tokens seen", "tokens", count, None),
    ("training time", "training_seconds", duration, None),
    ("tokens per second, median", "tokens_per_second", count, max),
    ("MFU, median", "mfu", percent, max),
    ("parameters", "parameters", count, None),
    ("parameters active per token", "active_parameters", count, None),
    ("busiest expert over mean", "max_over_mean_load", times, min),
    ("state", "status", lambda status: STATUS_WORDS[status], None),
)


def comparison(runs: Sequence[Series]) -> str:
    """Return the page that compares runs."""
    names = unique_names(runs)
    listed = ", ".join(names[:-1]) + f" and {names[-1]}"
    head = (
        f'<div class="title">{emblem()}<div><h1>{len(runs)} runs compared</h1>'
        f"<p>{escape(printable(listed))}</p></div></div>{_figures(runs, names)}"
    )
    return document(
        f"{len(runs)} runs compared · Coterie",
        head,
        [
            ("loss", "Loss", _loss_charts(runs, names)),
            ("samples", "Last samples", _last_samples(runs, names)),
            ("experts", "Experts", _balance_chart(runs, names)),
            ("optimizer", "Optimiser and speed", _optimizer_charts(runs, names)),
            ("differences", "What differs in the configuration", _differences(runs, names)),
        ],
    )


def unique_names(runs: Sequence[Series]) -> list[str]:
    """Return the runs' names, numbered where two are the same."""
    names: list[str] = []
    for run in runs:
        name, number = run.name, 1
        while name in names:
            number += 1
            name = f"{run.name} ({number})"
        names.append(name)
    return names


def _figures(runs: Sequence[Series], names: Sequence[str]) -> str:
    """Return the headline figures, a column for each run in its curves' colour, the best bold."""
    head = "".join(
        f'<th scope="col" style="--c:{colour}">{escape(printable(name))}</th>'
        for colour, name, _ in _coloured(runs, names)
    )
    found: list[dict[str, Any]] = [run.headline() for run in runs]
    rows = []
    for label, key, text, better in _ROWS:
        values = [one[key] for one in found]
        known = [value for value in values if value is not None]
        if not known:
            continue
        texts = [text(value) for value in values]
        best = text(better(known)) if better and len(set(texts)) > 1 else None
        cells = "".join(
            f"<td{' class=best' if each == best else ''}>{escape(each)}</td>" for each in texts
        )
        rows.append(f'<tr><th scope="row">{label}</th>{cells}</tr>')
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Headline figures">'
        f'<table class="runs"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _loss_charts(runs: Sequence[Series], names: Sequence[str]) -> str:
    by_character = all(
        run.validation and run.validation[-1].nats_per_character is not None for run in runs
    )
    longest = max((float(run.elapsed[-1]) for run in runs if len(run.elapsed)), default=0.0)
    unit, scale = ("seconds", 1.0) if longest < 180 else ("minutes", 60.0)
    unit, scale = ("hours", 3600.0) if longest > 3 * 3600 else (unit, scale)
    trained, by_tokens, by_time = [], [], []
    for colour, name, run in _coloured(runs, names):
        steps = [e.step for e in run.validation]
        losses = np.array(
            [(e.nats_per_character if by_character else e.loss) or np.nan for e in run.validation]
        )
        tokens, spent = run.at_step(run.tokens, steps), run.at_step(run.elapsed, steps) / scale
        trained.append(Line(name, run.tokens, run.smoothed, colour))
        by_tokens.append(Line(name, tokens, losses, colour, dots=True))
        by_time.append(Line(name, spent, losses, colour, dots=True))
    per = "nats per character" if by_character else "nats per token"
    look: dict[str, Any] = {"log": True, "wide": True, "digits": 4}
    smoothed = "nats per token, smoothed"
    charts = [
        Chart("Validation loss", per, by_tokens, "tokens", **look),
        Chart("Validation loss", per, by_time, f"training time, {unit}", **look),
        Chart("Training loss", smoothed, trained, "tokens", **look),
    ]
    return "".join(chart.html() for chart in charts)


def _balance_chart(runs: Sequence[Series], names: Sequence[str]) -> str:
    lines = []
    for colour, name, run in _coloured(runs, names):
        if not run.layers:
            continue
        shortest = min(len(layer.steps) for layer in run.layers)
        worst = np.max([layer.imbalance[-shortest:] for layer in run.layers], axis=0)
        lines.append(Line(name, run.layers[0].steps[-shortest:], worst, colour))
    unit = "load over its layer's mean, the worst layer"
    return Chart("Busiest expert", unit, lines, base=1.0, wide=True).html()


def _optimizer_charts(runs: Sequence[Series], names: Sequence[str]) -> str:
    coloured = list(_coloured(runs, names))

    def lines(field: str, smoothed: bool = True) -> list[Line]:
        values = [(c, n, r, r[Steps].curves[field]) for c, n, r in coloured]
        return [Line(n, r.step, smooth(v) if smoothed else v, c) for c, n, r, v in values]

    charts = [
        Chart("Learning rate", "per step", lines("learning_rate", smoothed=False), base=0.0),
        Chart("Gradient norm", "before clipping, smoothed", lines("gradient_norm"), log=True),
        Chart("Speed", "tokens per second, smoothed", lines("tokens_per_second"), base=0.0),
    ]
    return f'<div class="grid">{"".join(chart.html() for chart in charts)}</div>'


def _last_samples(runs: Sequence[Series], names: Sequence[str]) -> str:
    cells = []
    for colour, name, run in _coloured(runs, names):
        last = run[Samples].last
        if last is None:
            continue
        cells.append(
            f'<article style="--c:{colour}"><h3>{escape(printable(name))}'
            f"<small> · step {last.step:,}</small></h3>{sample_text(last)}</article>"
        )
    return f'<div class="grid beside-each-other">{"".join(cells)}</div>' if cells else ""


def _differences(runs: Sequence[Series], names: Sequence[str]) -> str:
    """Return the settings that are not the same in every run."""
    flat = [flatten(loaded) if (loaded := run.settings()) else {} for run in runs]
    keys = sorted({key for one in flat for key in one})
    rows = []
    for key in keys:
        values = [one.get(key, _MISSING) for one in flat]
        if len(set(values)) > 1:
            rows.append((key, *values))
    if not any(flat):
        return ""
    if not rows:
        return '<p class="note">Nothing: the configurations are the same.</p>'
    return table("Settings that differ", ("setting", *names), rows)


def flatten(value: Any, path: str = "") -> dict[str, str]:
    """Return nested settings as dotted paths with values as text."""
    if isinstance(value, dict) and value:
        items = [(f"{path}.{k}" if path else str(k), v) for k, v in value.items()]
    elif isinstance(value, list) and value:
        items = [(f"{path}[{i}]", v) for i, v in enumerate(value)]
    else:
        return {path: to_yaml(value, width=1000).removesuffix("\n...\n").strip()}
    return {key: text for name, each in items for key, text in flatten(each, name).items()}


def _coloured(runs: Sequence[Series], names: Sequence[str]) -> list[tuple[str, str, Series]]:
    return [(PALETTE[i % len(PALETTE)], names[i], run) for i, run in enumerate(runs)]
