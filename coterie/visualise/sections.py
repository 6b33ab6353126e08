"""The sections of one run's page, each from its `Series`."""

from __future__ import annotations

import math
from html import escape
from itertools import groupby
from pathlib import Path

import numpy as np

from coterie.foundation.printable import printable
from coterie.train.events import Sampled
from coterie.visualise.charts import PALETTE, Chart, Line, layer_colour
from coterie.visualise.figures import (
    count,
    duration,
    loss,
    percent,
    size,
    split_name,
    times,
)
from coterie.visualise.heat import bias_strips, latest_table, load_strips
from coterie.visualise.page import emblem, folded, moment, pairs, table, tiles
from coterie.visualise.prose import has_tags, settings, written
from coterie.visualise.series import LayerHistory, Series, smooth

STATUS_WORDS = {
    "finished": "finished",
    "interrupted": "interrupted",
    "failed": "failed",
    "running": "no end recorded",
}
_MOST_SAMPLES = 60


def header(series: Series) -> str:
    """Return name, state, headline figures and whatever asks for attention."""
    start = series.start
    facts = [f"preset {start.preset}", start.device, start.precision] if start else []
    began = moment(series.starts[0].time) if series.starts else ""
    line = " · ".join([*(escape(printable(fact)) for fact in facts), *([began] if began else [])])
    return (
        f'<div class="title">{emblem()}<div><h1>{escape(printable(series.name))} '
        f'<span class="status {series.status}">{STATUS_WORDS[series.status]}</span></h1>'
        f"<p>{line}</p></div></div>{_summary(series)}{tiles(_headline_tiles(series))}"
        f"{_alerts(series)}"
    )


def _headline_tiles(series: Series) -> list[tuple[str, str, str]]:
    figures, start = series.headline(), series.start
    entries = []
    best = series.best
    if best:
        last = series.validation[-1]
        place = (
            f"best {loss(best.loss)} at step {best.step:,}" if best != last else "the best so far"
        )
        entries.append(("validation loss", loss(last.loss), f"nats per token; {place}"))
    per_character = figures["nats_per_character"]
    if isinstance(per_character, float):
        bits = per_character / math.log(2)
        entries.append(("nats per character", loss(per_character), f"{bits:.2f} bits"))
    entries.append(("training loss", loss(figures["training_loss"]), "nats per token, smoothed"))
    planned = f"{figures['steps']:,} of {start.steps:,} steps" if start else ""
    entries.append(("tokens seen", count(figures["tokens"]), planned))
    spent = duration(figures["training_seconds"])
    entries.append(("training time", spent, "without evaluating and saving"))
    mfu = f"median; {percent(figures['mfu'])} MFU" if figures["mfu"] is not None else "median"
    entries.append(("tokens per second", count(figures["tokens_per_second"]), mfu))
    if start:
        active = f"{count(start.active_parameters)} active per token"
        entries.append(("parameters", count(start.parameters), active))
    if series.layers:
        dead = f"busiest expert over mean; {figures['dead_experts']} dead"
        entries.append(("expert balance", times(series.imbalance), dead))
    return entries


def _summary(series: Series) -> str:
    """Return how the run went, in a sentence or two."""
    if not len(series.step):
        return '<p class="lead">No step has been recorded yet.</p>'
    sentences = []
    held_out = series.validation
    if len(held_out) > 1:
        sentences.append(
            f"In {duration(float(series.elapsed[-1]))} of training on "
            f"{count(int(series.tokens[-1]))} tokens, validation loss went from "
            f"{loss(held_out[0].loss)} to {loss(held_out[-1].loss)}."
        )
    if series.layers and series.imbalance is not None:
        total = sum(layer.load.shape[1] for layer in series.layers)
        share = f"The busiest of {total} experts takes {times(series.imbalance)} its even share"
        dead = series.dead_experts
        idle = "none is idle" if not dead else "one is idle" if dead == 1 else f"{dead} are idle"
        sentences.append(f"{share}; {idle}.")
    if series.ended and series.ended.status == "failed" and series.ended.message:
        sentences.append(f"It failed: {series.ended.message}")
    return f'<p class="lead">{escape(printable(" ".join(sentences)))}</p>'


def _alerts(series: Series) -> str:
    """Return warnings and damaged checkpoints as a short list with a link to the record."""
    warnings = [notice.message for notice in series.warnings]
    lines = [
        f"{d.path} is damaged: {d.problem}"
        for d in series.damaged
        if not any(Path(d.path).name in warning for warning in warnings)
    ]
    lines += [*series.complaints, *warnings]
    if not lines:
        return ""
    shown = "".join(f"<li>{escape(printable(line))}</li>" for line in lines[:4])
    more = f'<li><a href="#record">and {len(lines) - 4} more</a></li>' if len(lines) > 4 else ""
    return f'<ul class="alerts" aria-label="Warnings">{shown}{more}</ul>'


def loss_section(series: Series) -> str:
    """Return the loss curves with marks where the run was resumed."""
    lines = [
        Line("each step", series.step, series.loss, faint=True),
        Line("training", series.step, series.smoothed),
    ]
    for colour, (split, found) in zip(PALETTE[1:], series.evaluations.items(), strict=False):
        x = np.array([e.step for e in found])
        lines.append(
            Line(split_name(split), x, np.array([e.loss for e in found]), colour, dots=True)
        )
    return Chart(
        "Training and validation", "nats per token", lines, log=True, wide=True, digits=4,
        marks=_resumes(series),
        note="Pale: each step. Line: its running mean. Dots: the whole held-out split.",
    ).html()  # fmt: skip


def samples_section(series: Series) -> str:
    """Return the texts written during training, step by step; the script adds a slider."""
    steps = [(step, list(texts)) for step, texts in groupby(series.samples, lambda s: s.step)]
    if not steps:
        return ""
    if len(steps) > _MOST_SAMPLES:
        index = np.linspace(0, len(steps) - 1, _MOST_SAMPLES).round().astype(int)
        steps = [steps[i] for i in index]
    losses = {e.step: e.loss for e in series.validation}
    items = []
    for step, texts in steps:
        known = f" · validation loss {loss(losses[step])}" if step in losses else ""
        items.append(
            f'<li data-step="{step}"><h3>step {step:,}<small>{known}</small></h3>'
            f"{''.join(sample_text(sample) for sample in texts)}</li>"
        )
    tagged = any(has_tags(s.text) or has_tags(s.prompt) for _, texts in steps for s in texts)
    toggle = '<label class="toggle"><input type="checkbox"> show tags</label>' if tagged else ""
    prompted = any(sample.prompt for _, texts in steps for sample in texts)
    note = '<p class="note">In colour: the prompt, which was given.</p>' if prompted else ""
    return f'<div class="samples">{toggle}<ol>{"".join(items)}</ol></div>{note}'


def sample_text(sample: Sampled) -> str:
    """Return one sample, its prompt set apart whether or not the text repeats it."""
    text = sample.text.removeprefix(sample.prompt)
    prompt = f'<span class="prompt">{written(sample.prompt)}</span>' if sample.prompt else ""
    return f'<div class="sample">{prompt}{written(text)}</div>'


def experts_section(series: Series) -> str:
    """Return load over time per layer and expert, balance, dead experts and dropped tokens."""
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
        marks=_resumes(series),
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


def optimizer_section(series: Series) -> str:
    """Return learning rate, gradient norm, speed, memory and auxiliary losses."""
    step = series.step
    marks = _resumes(series)
    charts = [
        Chart("Learning rate", "per step", [Line("rate", step, series.learning_rate)], base=0.0),
        Chart("Gradient norm", "before clipping", _with_mean("norm", step, series.gradient_norm),
              log=True, marks=marks),
        Chart("Speed", "tokens per second", _with_mean("tokens/s", step, series.tokens_per_second),
              base=0.0, marks=marks),
        Chart("Model FLOPs utilisation", "per cent of the machine's measured peak",
              _with_mean("MFU", step, 100 * series.mfu), base=0.0),
    ]  # fmt: skip
    if np.isfinite(series.memory).any():
        memory = Line("memory", step, series.memory / 1e6)
        charts.append(Chart("Memory", "peak, MB", [memory], base=0.0))
    for name, values in series.auxiliary.items():
        if not values[np.isfinite(values)].any():  # a loss that is switched off
            continue
        title = printable(name).replace("_", " ")
        charts.append(Chart(title, "auxiliary, nats", _with_mean(title, step, values)))
    return f'<div class="grid">{"".join(chart.html() for chart in charts)}</div>'


def _with_mean(name: str, step: np.ndarray, values: np.ndarray) -> list[Line]:
    return [Line("each step", step, values, faint=True), Line(name, step, smooth(values))]


def record_section(series: Series) -> str:
    """Return what happened besides training: starts, ends, notices, checkpoints."""
    lines: list[tuple[float, str, str]] = []
    for start in series.starts:
        resumed = start.resumed_from
        text = "The run began." if resumed is None else f"Resumed from step {resumed:,}."
        lines.append((start.time, "info", text))
    lines += [(d.time, "warning", f"{d.path} is damaged: {d.problem}") for d in series.damaged]
    lines += [(n.time, n.level, n.message) for n in series.notices]
    if series.ended:
        end = series.ended
        text = f"The run {end.status} at step {end.step:,} after {duration(end.seconds)}."
        lines.append((end.time, "info", f"{text} {end.message}".strip()))
    lines.sort(key=lambda line: line[0])
    items = "".join(
        f'<li class="{level}">{moment(when)} <span>{escape(printable(text))}</span></li>'
        for when, level, text in lines
    )
    saved = table(
        "Checkpoints saved",
        ("step", "size", "time to save", "place"),
        [(f"{s.step:,}", size(s.bytes), duration(s.seconds), s.path) for s in series.saved],
    )
    words = f"{len(series.saved)} checkpoint{'s' * (len(series.saved) != 1)} saved"
    return f'<ol class="record">{items}</ol>' + (folded(words, saved) if series.saved else "")


def configuration_section(series: Series) -> str:
    """Return the resolved configuration and the machine."""
    parts = []
    if series.config.strip():
        code = f'<pre class="yaml"><code>{settings(series.config)}</code></pre>'
        parts.append(folded("Resolved configuration", code))
    if series.start:
        start = series.start
        entries: list[tuple[str, object]] = [("device", start.device)]
        entries.append(("precision", start.precision))
        if start.peak_flops:
            entries.append(("measured ceiling", f"{count(start.peak_flops)}FLOP/s"))
        entries.append(("tokens per step", f"{start.tokens_per_step:,}"))
        entries += [_machine_entry(name, value) for name, value in start.machine.items()]
        parts.append(f"<h3>Machine</h3>{pairs(entries)}")
    return "".join(parts)


def _machine_entry(name: str, value: str | int | float) -> tuple[str, object]:
    """Return one fact about the machine with its unit."""
    if name.endswith("_bytes") and not isinstance(value, str):
        return name.removesuffix("_bytes").replace("_", " "), size(value)
    return name.replace("_", " "), value


def _resumes(series: Series) -> list[tuple[float, str]]:
    return [(float(step), "resumed") for step in series.resumes]
