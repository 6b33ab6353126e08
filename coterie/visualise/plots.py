"""A run's curves as picture files, SVG and PNG, for papers and READMEs.

`overview.png` tells a run in one picture: the loss falling, and the load of the experts becoming
even. Lines carry their names themselves; colours are those of the report.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, NullLocator

from coterie.foundation.errors import UserError
from coterie.foundation.files import atomic_file, explain_disk_errors
from coterie.foundation.printable import printable
from coterie.foundation.runs import RunDirectory
from coterie.visualise.axis import axis_for, tick_text
from coterie.visualise.figures import count, duration, significant
from coterie.visualise.pixels import COOL, WARM, levels_of_share
from coterie.visualise.reducers.steps import Steps
from coterie.visualise.series import Series, read_series

INK, SOFT, HAIR = "#1d2126", "#5b636d", "#e3e0d8"
BLUE, ORANGE = "#1f5f9e", "#c2540d"
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 10,
    "text.color": INK, "text.parse_math": False,  # a run may be named with dollar signs
    "axes.edgecolor": HAIR, "axes.labelcolor": SOFT, "axes.labelsize": 9.5, "axes.grid": True,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "grid.color": "#edeae3", "grid.linewidth": 0.8, "xtick.color": SOFT, "ytick.color": SOFT,
    "xtick.labelsize": 9, "ytick.labelsize": 9, "xtick.major.size": 0, "ytick.major.size": 0,
    "lines.solid_capstyle": "round", "svg.fonttype": "none", "svg.hashsalt": "coterie",
    "figure.facecolor": "white",
}  # fmt: skip


def _tint(colour: tuple[int, int, int]) -> tuple[float, float, float]:
    return colour[0] / 255, colour[1] / 255, colour[2] / 255


_MAP = LinearSegmentedColormap.from_list("load", [_tint(COOL), (1, 1, 1), _tint(WARM)])


def write_plots(run: RunDirectory, folder: Path | str) -> list[Path]:
    """Write a run's plots into a folder and return their paths.

    `loss`, `learning_rate` and, for a model with experts, `load`, each as SVG and PNG; and
    `overview.png`. A plot with nothing to show is left out.

    Raises:
        RunError: the run has recorded nothing yet.
        UserError: the folder cannot be written, or the disk is full.
    """
    series, folder = read_series(run), Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; the pictures need a folder.")
    plots: list[tuple[str, Callable[[Series], Figure], tuple[str, ...]]] = []
    if len(series.step):
        plots.append(("loss", loss_figure, ("svg", "png")))
        plots.append(("learning_rate", rate_figure, ("svg", "png")))
    if series.layers:
        plots.append(("load", load_figure, ("svg", "png")))
    if len(series.step):
        plots.append(("overview", overview_figure, ("png",)))
    written = []
    with explain_disk_errors(str(folder)), matplotlib.rc_context(_STYLE):
        folder.mkdir(parents=True, exist_ok=True)
        for name, draw, endings in plots:
            figure = draw(series)
            for ending in endings:
                path = folder / f"{name}.{ending}"
                # No date inside, so that the same events give the same file.
                metadata = {"Date": None} if ending == "svg" else None
                with atomic_file(path) as partial:
                    figure.savefig(partial, format=ending, dpi=160, metadata=metadata)
                written.append(path)
    return written


class Picture(Figure):
    """A figure that belongs to no window and shows itself in a notebook."""

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        with matplotlib.rc_context(_STYLE):
            self.savefig(content, format="png", dpi=120)
        return content.getvalue()


def run_figure(series: Series) -> Picture:
    """Return a run in one picture, as `overview.png` shows it.

    Raises:
        UserError: the run has recorded no step yet.
    """
    if not len(series.step):
        raise UserError(f"The run {series.name} has recorded no step yet, so nothing can be drawn.")
    with matplotlib.rc_context(_STYLE):
        return overview_figure(series)


def loss_figure(series: Series) -> Picture:
    figure = Picture(figsize=(7.6, 4.2), layout="constrained")
    axes = figure.subplots()
    draw_loss(axes, series)
    axes.set_title(f"{printable(series.name)}: loss", **_TITLE)
    return figure


def rate_figure(series: Series) -> Picture:
    figure = Picture(figsize=(7.6, 3.0), layout="constrained")
    axes = figure.subplots()
    rate, alone = series[Steps].curves["learning_rate"], "o" if len(series.step) == 1 else None
    axes.plot(series.step, rate, color=BLUE, lw=1.8, marker=alone, clip_on=False)
    axes.set(xlabel="step", ylabel="learning rate", ylim=(0, None))
    _across_steps(axes, series.step[-1])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: significant(value)))
    axes.set_title(f"{printable(series.name)}: learning rate", **_TITLE)
    return figure


def load_figure(series: Series) -> Picture:
    """Return the load per expert over time, a strip per layer, beside its busiest expert."""
    amount = len(series.layers)
    figure = Picture(figsize=(7.6, min(16.0, 1.5 + 0.85 * amount)), layout="constrained")
    strips = figure.subplots(amount, 1, sharex=True, squeeze=False)[:, 0]
    mesh = draw_load(list(strips), series)
    strips[0].set_title(f"{printable(series.name)}: load per expert", **_TITLE)
    _colour_bar(figure, mesh, list(strips), amount)
    return figure


def overview_figure(series: Series) -> Picture:
    """Return the loss and, where there are experts, their load over time, side by side."""
    start, amount = series.start, len(series.layers)
    shown = min(amount, 12)
    engine = ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.09)
    figure = Picture(figsize=(11.5 if amount else 7.6, 4.5), layout=engine)
    halves: Any = figure.subfigures(1, 2, width_ratios=(1.08, 1)) if amount else [figure, None]
    left, right = halves[0], halves[1]
    axes = left.subplots()
    draw_loss(axes, series)
    axes.set_title("Loss", **_TITLE)
    if right is not None:
        strips = list(right.subplots(shown, 1, sharex=True, squeeze=False)[:, 0])
        mesh = draw_load(strips, series)
        strips[0].set_title("Load per expert", **_TITLE)
        _colour_bar(right, mesh, strips, shown)
    facts = [printable(series.name)]
    if start:
        active = f"{count(start.active_parameters)} active" if amount else "dense"
        facts.append(f"{count(start.parameters)} parameters ({active})")
    facts.append(f"{count(float(series.tokens[-1]))} tokens in {duration(series.elapsed[-1])}")
    if start:
        facts.append(printable(start.device))
    figure.suptitle("  ·  ".join(facts), x=0.012, ha="left", fontsize=10, color=SOFT)
    return figure


_TITLE = {"loc": "left", "fontsize": 11.5, "fontweight": "bold", "color": INK, "pad": 9}


def draw_loss(axes: Axes, series: Series) -> None:
    """Draw training loss (pale: each step) and validation loss, named at their ends."""
    axes.plot(
        *series[Steps].curves.extremes("loss"), color=BLUE, lw=0.6, alpha=0.28, rasterized=True
    )
    alone = "o" if len(series.step) == 1 else None  # a line of one point is nothing
    axes.plot(series.step, series.smoothed, color=BLUE, lw=1.9, marker=alone, clip_on=False)
    ends = [("training", float(series.smoothed[-1]), BLUE)]
    values = [series.loss]
    if series.validation:
        steps = [e.step for e in series.validation]
        losses = np.array([e.loss for e in series.validation])
        axes.plot(steps, losses, color=ORANGE, lw=1.6, marker="o", ms=4.2, mec="white",
                  mew=0.7, clip_on=False, zorder=3)  # fmt: skip
        ends.append(("validation", float(losses[-1]), ORANGE))
        values.append(losses)
    up = axis_for(np.concatenate(values), log=True)
    axes.set_yscale("log" if up.log else "linear")
    ticks = up.ticks(6)
    axes.set_yticks(ticks, [tick_text(tick, ticks) for tick in ticks])
    axes.yaxis.set_minor_locator(NullLocator())
    _across_steps(axes, series.step[-1])
    axes.set_ylim(up.low, up.high)
    axes.set(xlabel="step", ylabel="nats per token" + (", log scale" if up.log else ""))
    for step in series.resumes:
        axes.axvline(step, color=SOFT, lw=0.8, ls=(0, (4, 3)))
        axes.text(step, 0.985, " resumed", color=SOFT, fontsize=8.5, va="top",
                  transform=axes.get_xaxis_transform())  # fmt: skip
    _name_ends(axes, up.place, ends)


def _across_steps(axes: Axes, last: int) -> None:
    axes.set_xlim(0, max(1, last))
    axes.locator_params(axis="x", integer=True)  # there is no half a step


def _name_ends(
    axes: Axes, place: Callable[[float], np.ndarray], ends: list[tuple[str, float, str]]
) -> None:
    """Write each line's name and last value right of its end, moved apart if they would meet."""
    known = sorted((end for end in ends if np.isfinite(end[1])), key=lambda end: end[1])
    floor = 0.0
    for name, value, colour in known:
        height = max(float(place(value)), floor)
        floor = height + 0.11
        axes.annotate(
            f"{name}\n{value:.3f}", (1, height), (6, 0), xycoords="axes fraction",
            textcoords="offset points", color=colour, fontsize=9.5, va="center", linespacing=1.15,
            fontweight="bold", annotation_clip=False,
        )  # fmt: skip


def draw_load(strips: list[Axes], series: Series) -> QuadMesh:
    """Draw a strip per layer, experts from top to bottom and steps from left to right."""
    mesh = None
    for axes, layer in zip(strips, series.layers, strict=False):
        binned = layer.binned(240)
        edges = np.concatenate([[0], binned.steps])
        if len(edges) > 1 and (np.diff(edges) <= 0).any():  # an odd record: place by order
            edges = np.arange(len(edges))
        experts = layer.load.shape[1]
        mesh = axes.pcolormesh(
            edges, np.arange(experts + 1), levels_of_share(binned.share).T,
            cmap=_MAP, vmin=-1, vmax=1, rasterized=True,
        )  # fmt: skip
        axes.set_ylim(experts, 0)
        axes.grid(False)
        axes.set_yticks([])
        axes.set_ylabel(f"layer {layer.layer}", rotation=0, ha="right", va="center")
        axes.spines[:].set_visible(True)
        axes.annotate(
            f"{binned.imbalance[-1]:.2f}×", (1, 0.5), (6, 0), xycoords="axes fraction",
            textcoords="offset points", va="center", fontsize=9, color=INK, fontweight="bold",
        )  # fmt: skip
    assert mesh is not None, "there is at least one layer"
    strips[-1].locator_params(axis="x", integer=True)
    strips[-1].set_xlabel("step; right: busiest expert over mean, at the end")
    return mesh


def _colour_bar(figure, mesh: QuadMesh, strips: list[Axes], amount: int) -> None:
    """Add a colour scale in the words of the report: half, even, twice an even share."""
    bar = figure.colorbar(mesh, ax=strips, pad=0.02, fraction=0.035, aspect=8 + 4 * min(amount, 4))
    bar.set_ticks([-1, 0, 1], labels=["½×", "even", "2×"])
    bar.outline.set_edgecolor(HAIR)
