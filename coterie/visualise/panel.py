"""The live display's picture: a run's `Series` laid out for a terminal with rich."""

import math
from collections.abc import Sequence
from itertools import pairwise

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from coterie.foundation.events import Notice
from coterie.foundation.printable import printable
from coterie.train.events import LayerLoad, RunStarted, Sampled
from coterie.visualise.figures import clock, count, loss, percent, significant, split_name
from coterie.visualise.reducers.course import Evaluations, Samples
from coterie.visualise.reducers.loads import Loads
from coterie.visualise.reducers.steps import Pace, Processes, Steps
from coterie.visualise.sections.section import added_lines
from coterie.visualise.series import Series

BARS = "▁▂▃▄▅▆▇█"
_MOST_BARS = 32  # experts drawn one by one
_LAYER_ROWS = 4
_SAMPLE_ROWS = 8
_NOTICE_ROWS = 3
_STATUS = {"finished": "green", "interrupted": "yellow", "failed": "red"}


def panel(series: Series, elapsed: float, width: int, height: int) -> RenderableType:
    """Return the whole display.

    Args:
        elapsed: seconds since it began or was resumed.
        width, height: of the terminal in characters; less is shown where there is less room.
    """
    start = series.start
    if start is None:
        return Text("Waiting for the first event …", style="dim")
    inner = max(20, width - 4)
    figures = _figures(series, inner)
    parts: list[RenderableType] = [_bar(series, start, elapsed), figures]
    free = height - 4 - figures.row_count  # lines left: less frame, bar, and one below the frame
    load = series[Loads].last
    if load and load.layers and free >= 2:
        loads = _loads(load.layers, inner, min(_LAYER_ROWS, free - 1))
        parts += [Text(), loads]
        free -= 1 + loads.row_count
    notices = series.notices[-min(_NOTICE_ROWS, max(1, free - 1)) :] if free >= 2 else []
    free -= len(notices) + 1 if notices else 0
    sample = series[Samples].last
    if sample and free >= 3:
        parts += [Text(), _sample(sample, inner, min(free - 2, _SAMPLE_ROWS))]
    if notices:
        parts += [Text(), *(_notice(notice) for notice in notices)]
    state = series.ended.status if series.ended else None
    return Panel(
        Group(*parts),
        title=_title(start),
        title_align="left",
        subtitle=Text(f" {state} ", style=f"bold {_STATUS[state]}") if state else None,
        subtitle_align="right",
        border_style=_STATUS.get(state or "", "bright_black"),
        padding=(0, 1),
    )


def _title(start: RunStarted) -> Text:
    title = Text().append(f"{printable(start.name)} ", style="bold default")
    facts = (
        f"· {count(start.parameters)} parameters, {count(start.active_parameters)} active "
        f"· {start.device}, {start.precision}"
    )
    return title.append(printable(facts), style="default dim")


def _bar(series: Series, start: RunStarted, elapsed: float) -> Table:
    last = series[Steps].last
    step, steps = last.step if last else start.resumed_from or 0, max(1, start.steps)
    row = Table.grid(expand=True, padding=(0, 2, 0, 0))
    row.add_column(no_wrap=True)
    row.add_column(ratio=1)
    row.add_column(no_wrap=True)
    words = Text(f"step {step:,}/{start.steps:,}", style="bold")
    if epoch := start.epoch_at(step):
        words.append(f"  {epoch}", style="not bold")
    times = Text(f"{step / steps:4.0%}  {clock(elapsed)}")
    left = series[Pace].seconds_left
    if left is not None:
        times.append(f"  {clock(max(1, left))} left", style="bold cyan")
    bar = ProgressBar(total=steps, completed=min(step, steps), complete_style="cyan",
                      finished_style="green", style="bright_black")  # fmt: skip
    row.add_row(words, bar, times)
    return row


def _figures(series: Series, width: int) -> Table:
    """Return losses with their curve, then learning rate, gradient and speed."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True)
    last = series[Steps].last
    if last:
        line = Text().append(loss(last.loss), style="bold")
        known = [value for value in series.smoothed.tolist() if math.isfinite(value)]
        line.append(f"  smoothed {loss(known[-1] if known else None)}  ", style="dim")
        falling = [math.log(max(value, 1e-9)) for value in known]
        curve = spark(falling, min(60, max(8, width - 42)))
        table.add_row("loss", line.append(curve, style="blue"))
    evaluation, best = series[Evaluations].last, series.best
    if evaluation:
        line = Text().append(loss(evaluation.loss), style="bold dark_orange3")
        detail = f"  at step {evaluation.step:,}"
        if loss(evaluation.nats_per_character) not in ("–", loss(evaluation.loss)):
            detail += f"  {loss(evaluation.nats_per_character)} nats per character"
        if best and best.step != evaluation.step:
            detail += f"  best {loss(best.loss)} at {best.step:,}"
        table.add_row(split_name(evaluation.split), line.append(detail, style="dim"))
    if last:
        line = Text(f"{count(last.tokens_per_second)} tokens/s")
        if last.mfu is not None:
            line.append(f"  {percent(last.mfu)} MFU")
        line.append(f"  {count(last.tokens)} tokens seen", style="dim")
        table.add_row("speed", line)
        line = Text(f"rate {significant(last.learning_rate)}")
        line.append(f"  gradient norm {significant(last.gradient_norm)}")
        table.add_row("optimizer", line)
    if shared := processes(series):
        table.add_row("processes", shared)
    for title, text in added_lines(series):
        table.add_row(title, text)
    return table


def processes(series: Series) -> Text | None:
    """Return how many processes share the run and how long they wait; None: there is only one."""
    last = series[Processes].last
    if last is None:
        return None
    line = Text(f"{len(last.ranks)}")
    known = [each.waiting for each in last.ranks if each.waiting is not None]
    if known:
        line.append(f"  waiting {percent(min(known))} to {percent(max(known))}", style="dim")
    if last.straggler is not None:
        line.append(f"  all wait for rank {last.straggler}", style="bold yellow")
    return line


def _loads(layers: Sequence[LayerLoad], width: int, rows: int) -> Table:
    """Return small bars per layer; where there are too many layers, those least in balance."""
    most = min(_MOST_BARS, max(len(layer.load) for layer in layers))
    cell = most + 20
    columns = max(1, min(width // cell, -(-len(layers) // 2), 4))
    fitting = columns * rows
    shown = list(layers)
    if len(shown) > fitting:
        shown = sorted(sorted(shown, key=_imbalance)[-fitting:], key=lambda layer: layer.layer)
    table = Table.grid(padding=(0, 3, 0, 0))
    for _ in range(columns):
        table.add_column(no_wrap=True)
    cells = [_layer(layer) for layer in shown]
    cells += [Text()] * (-len(cells) % columns)
    for at in range(0, len(cells), columns):
        table.add_row(*cells[at : at + columns])
    return table


def _layer(layer: LayerLoad) -> Text:
    text = Text(f"layer {layer.layer:<3}", style="dim")
    loads = layer.load
    if len(loads) > _MOST_BARS:  # the profile from busiest to idlest, at even intervals
        ordered = sorted(loads, reverse=True)
        last = len(ordered) - 1
        loads = tuple(ordered[round(i * last / (_MOST_BARS - 1))] for i in range(_MOST_BARS))
    mean = max(1e-9, sum(layer.load) / len(layer.load))
    for value in loads:
        share = value / mean
        bar = BARS[min(7, round(share * 3.5))]  # an even share is half the height
        text.append(bar, style=f"not dim {_load_style(share)}")
    ratio = _imbalance(layer)
    style = "green" if ratio < 1.2 else "yellow" if ratio < 2 else "red"
    text.append(f"  {ratio:.2f}×", style=f"not dim {style}")
    if layer.dropped:
        text.append(f" −{count(layer.dropped)}", style="not dim red")
    return text


def _load_style(share: float) -> str:
    if share == 0:
        return "red"
    if share > 1.5:
        return "dark_orange3"
    return "blue" if share < 0.5 else "cyan"


def _imbalance(layer: LayerLoad) -> float:
    return layer.imbalance if sum(layer.load) else 1.0


def _sample(sample: Sampled, width: int, rows: int) -> Group:
    """Return the beginning of a sample, prompt and continuation told apart."""
    text = Text(no_wrap=False, overflow="fold")
    text.append(printable(sample.prompt), style="cyan")
    text.append(printable(sample.text.removeprefix(sample.prompt)))
    text.highlight_regex(r"</?[A-Z_]+>", "dim")
    lines = [line for line in text.split("\n", allow_blank=True) if line.plain.strip()]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    shown = Text("\n").join(lines[:rows])
    return Group(Text(f"sample at step {sample.step:,}", style="dim"), shown)


def _notice(notice: Notice) -> Text:
    style = "yellow" if notice.level == "warning" else "dim"
    text = printable(f"{notice.level}: {notice.message}")
    return Text(text, style=style, overflow="ellipsis", no_wrap=True)


def spark(values: Sequence[float], width: int) -> str:
    """Return a curve as a row of bars from the lowest to the highest value, `width` at most."""
    if not values:
        return ""
    if len(values) > width:
        edges = [round(i * len(values) / width) for i in range(width + 1)]
        values = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(values), max(values)
    span = high - low
    return "".join(BARS[round(7 * (v - low) / span)] if span > 0 else BARS[0] for v in values)
