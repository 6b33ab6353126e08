"""What is told besides curves: configuration, data, samples, and the record of what happened."""

from html import escape

import numpy as np

from coterie.foundation.printable import printable
from coterie.train.events import Sampled
from coterie.visualise.charts import Chart
from coterie.visualise.figures import count, duration, loss, size
from coterie.visualise.page import folded, moment, pairs, table
from coterie.visualise.prose import has_tags, settings, written
from coterie.visualise.reducers.course import (
    Checkpoints,
    Course,
    Data,
    Evaluations,
    Notices,
    Samples,
    Unread,
)
from coterie.visualise.sections.section import Section
from coterie.visualise.sections.training import by_name, resume_marks
from coterie.visualise.series import Series


def configuration_section(series: Series) -> str:
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


CONFIGURATION = Section(
    "configuration", "Configuration and machine", (Course,), configuration_section
)


def data_section(series: Series) -> str:
    told = series[Data].told
    if told is None:
        return ""
    found = {name: np.array(counts) for name, counts in told.lengths.items() if sum(counts) > 1}
    longest = max(map(len, found.values()), default=0)
    shortest = min((int(np.flatnonzero(counts)[0]) for counts in found.values()), default=0)
    places = np.arange(shortest, longest + 1).repeat(2)[1:-1]  # the two sides of each column
    outlines = {
        name: np.pad(100 * counts / counts.sum(), (0, longest - len(counts)))[shortest:].repeat(2)
        for name, counts in found.items()
    }
    lengths = Chart(
        "Lengths of documents", "per cent of a source's training documents",
        by_name(places, outlines), x_name="tokens, as a power of two", base=0.0, wide=True,
        note="From 10 to 11: documents of 1,024 to 2,047 tokens.",
    )  # fmt: skip
    if len(told.shares) < 2:
        return lengths.html()
    steps = np.array(told.steps)
    shares = {name: 100 * np.array(values) for name, values in told.shares.items()}
    mixture = Chart(
        "Mixture of sources", "per cent of the rows of a step", by_name(steps, shares), base=0.0,
        wide=True, marks=resume_marks(series),
        note="As planned when the run began; it is a function of the step alone.",
    )  # fmt: skip
    return lengths.html() + mixture.html()


DATA = Section("data", "Data", (Data, Course), data_section)


_MOST_SAMPLES = 60


def samples_section(series: Series) -> str:
    steps = [(texts[0].step, texts) for texts in series[Samples].steps]
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


SAMPLES = Section("samples", "Samples through training", (Samples, Evaluations), samples_section)


def record_section(series: Series) -> str:
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
    number = series[Checkpoints].saved.count
    words = f"{number:,} checkpoint{'s' * (number != 1)} saved"
    listed = folded(words, saved) if series.saved else ""
    return f'<ol class="record">{items}</ol>{_unknown(series)}{listed}'


def _unknown(series: Series) -> str:
    """Return which kinds of events no imported package declares."""
    kinds = [f"{number:,} of “{kind}”" for kind, number in series[Unread].unknown.items()]
    if not kinds:
        return ""
    text = f"Not shown, for nothing here declares their kind: {', '.join(kinds)}."
    return f'<p class="note">{escape(printable(text))}</p>'


RECORD = Section("record", "Record", (Course, Notices, Checkpoints, Unread), record_section)
