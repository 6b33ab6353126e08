"""Line charts as HTML figures: an SVG that stretches, with labels that do not.

The SVG holds only lines, in a box without proportions, so that a chart fills any width while text
stays at its own size and sharp. The page's script reads the values back from the paths themselves;
nothing is stored twice, and without the script the chart is complete.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np

from coterie.foundation.printable import printable
from coterie.visualise.axis import Axis, axis_for, tick_text
from coterie.visualise.figures import significant
from coterie.visualise.reducers.curves import thin

TALL, LOW = 320, 190  # heights of a wide and a half-width chart, CSS pixels
_GRAIN = 10_000  # resolution of a path on either axis
_LABEL_ROOM = 34  # pixels that one end label (name and value) needs
PALETTE = (*(f"var(--line-{n})" for n in range(1, 7)), "var(--shallow)", "var(--deep)")


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Args:
        label: its name, written beside its end and in the hover box.
        x: [N] positions. y: [N] values; not-a-number leaves a gap.
        colour: a CSS colour.
        faint: drawn thin and pale behind the others, without a label.
        dots: with a dot at every point.
    """

    label: str
    x: np.ndarray
    y: np.ndarray
    colour: str = PALETTE[0]
    faint: bool = False
    dots: bool = False

    @property
    def seen(self) -> bool:
        return bool(np.isfinite(self.y).any())


@dataclass(frozen=True)
class Chart:
    """A titled chart of several lines over one horizontal quantity.

    Args:
        title: what is shown. unit: the vertical quantity's name and unit.
        lines: what to draw; empty ones are left out.
        x_name: the horizontal quantity.
        log: whether the vertical axis is by logarithm.
        base: a value that the vertical axis begins at.
        marks: (position, label) of vertical marks, such as resumptions.
        wide: over the page's whole width, and taller.
        digits: significant digits of the values beside the lines.
        note: a sentence below the chart.
    """

    title: str
    unit: str
    lines: Sequence[Line]
    x_name: str = "step"
    log: bool = False
    base: float | None = None
    marks: Sequence[tuple[float, str]] = field(default=())
    wide: bool = False
    digits: int = 3
    note: str = ""

    def html(self) -> str:
        """Return the figure, or nothing where there is no value to draw."""
        lines = [line for line in self.lines if line.seen]
        if not lines:
            return ""
        across = _across(np.concatenate([line.x for line in lines]))
        values = np.concatenate([line.y for line in lines])
        up = axis_for(values, log=self.log, at_least=self.base)
        height = TALL if self.wide else LOW
        y_ticks, x_ticks = up.ticks(6 if self.wide else 4), across.ticks(6 if self.wide else 4)
        if all((line.x == np.rint(line.x)).all() for line in lines):  # no mark between two steps
            x_ticks = [tick for tick in x_ticks if tick == round(tick)]
        unit = self.unit + (", logarithmic scale" if up.log else "")
        note = f'<p class="note">{escape(self.note)}</p>' if self.note else ""
        return (
            f'<figure class="chart{" wide" if self.wide else ""}">'
            f"<figcaption><b>{escape(self.title)}</b> <span>{escape(unit)}</span></figcaption>"
            f'<div class="plot" style="height:{height}px" role="img"'
            f' aria-label="{escape(self._description(lines))}"'
            f' data-x="{across.low!r},{across.high!r}" data-y="{up.low!r},{up.high!r}"'
            f' data-log="{int(up.log)}" data-name="{escape(self.x_name)}">'
            + _svg(lines, across, up, y_ticks, x_ticks)
            + _tick_labels(across, up, x_ticks, y_ticks)
            + f'<span class="x-name">{escape(self.x_name)}</span>'
            + _marks(self.marks, across)
            + _end_labels(lines, up, height, self.digits)
            + f"</div>{note}</figure>"
        )

    def _description(self, lines: list[Line]) -> str:
        """Return what a chart says, in words, for readers who do not see it."""
        parts = []
        for line in lines:
            known = np.isfinite(line.y)
            if line.faint or not known.any():
                continue
            x, y = line.x[known], line.y[known]
            low = int(np.argmin(y))
            parts.append(
                f"{printable(line.label)} goes from {significant(y[0])} at {_position(x[0])} "
                f"to {significant(y[-1])} at {_position(x[-1])}, "
                f"lowest {significant(y[low])}"
            )
        return f"{self.title}, {self.unit}, against {self.x_name}: " + "; ".join(parts) + "."


def layer_colour(position: int, count: int) -> str:
    """Return a colour between the first and the last layer's."""
    share = 0 if count < 2 else round(100 * position / (count - 1))
    return f"color-mix(in oklab,var(--deep) {share}%,var(--shallow))"


def path(x: np.ndarray, y: np.ndarray, across: Axis, up: Axis) -> str:
    """Return an SVG path through the points, in whole units of the box, broken at gaps."""
    columns = np.rint(np.nan_to_num(across.place(x)) * _GRAIN).astype(int)
    places = up.place(y)
    commands: list[str] = []
    last: tuple[int, int] | None = None
    for column, place in zip(columns.tolist(), places.tolist(), strict=True):
        if place != place:
            last = None
            continue
        row = round((1 - place) * _GRAIN)
        if last is None:
            commands.append(f"M{column} {row}")
        else:
            step, rise = column - last[0], row - last[1]
            first = "l" if commands[-1][0] == "M" else " "
            commands.append(f"{first}{step}{rise}" if rise < 0 else f"{first}{step} {rise}")
        last = (column, row)
    return "".join(commands)


def _dots(x: np.ndarray, y: np.ndarray, across: Axis, up: Axis) -> str:
    """Return a path of nothing but round line ends, which stay round however the box stretches."""
    columns, places = across.place(x), up.place(y)
    return "".join(
        f"M{round(c * _GRAIN)} {round((1 - p) * _GRAIN)}h0"
        for c, p in zip(columns.tolist(), places.tolist(), strict=True)
        if c == c and p == p
    )


def _svg(
    lines: list[Line], across: Axis, up: Axis, y_ticks: list[float], x_ticks: list[float]
) -> str:
    rows = "".join(f"M0 {round((1 - p) * _GRAIN)}h{_GRAIN}" for p in up.place(np.array(y_ticks)))
    columns = "".join(f"M{round(p * _GRAIN)} 0v{_GRAIN}" for p in across.place(np.array(x_ticks)))
    drawn = [f'<path class="grid" d="{rows}"/><path class="grid upright" d="{columns}"/>']
    for line in sorted(lines, key=lambda each: not each.faint):
        x, y = thin(line.x, line.y)
        kind = "faint" if line.faint else "line"
        hover = f' data-label="{escape(printable(line.label))}"'
        drawn.append(
            f'<path class="{kind}" style="--c:{line.colour}"{hover} d="{path(x, y, across, up)}"/>'
        )
        if line.dots or len(x) == 1:
            dots = _dots(x, y, across, up)
            if len(x) == 1:  # a level, for a dot alone is hard to read off
                level = path(np.array([across.low, x[0]]), np.repeat(y, 2), across, up)
                drawn.append(f'<path class="faint" style="--c:{line.colour}" d="{level}"/>')
            drawn.append(f'<path class="halo" d="{dots}"/>')
            drawn.append(f'<path class="dots" style="--c:{line.colour}" d="{dots}"/>')
    box = f'viewBox="0 0 {_GRAIN} {_GRAIN}" preserveAspectRatio="none"'
    return f'<svg {box} aria-hidden="true" focusable="false">{"".join(drawn)}</svg>'


def _tick_labels(across: Axis, up: Axis, x_ticks: list[float], y_ticks: list[float]) -> str:
    rows = [
        f'<span class="y-tick" style="top:{_percent(1 - place)}">{tick_text(tick, y_ticks)}</span>'
        for tick, place in zip(y_ticks, up.place(np.array(y_ticks)), strict=True)
    ]
    columns = [
        f'<span class="x-tick" style="left:{_percent(place)}">{tick_text(tick, x_ticks)}</span>'
        for tick, place in zip(x_ticks, across.place(np.array(x_ticks)), strict=True)
    ]
    return "".join(rows + columns)


def _marks(marks: Sequence[tuple[float, str]], across: Axis) -> str:
    return "".join(
        f'<span class="mark" style="left:{_percent(float(across.place(x)))}">'
        f"<i>{escape(label)}</i></span>"
        for x, label in marks
        if across.low <= x <= across.high
    )


def _end_labels(lines: list[Line], up: Axis, height: int, digits: int) -> str:
    """Return each line's name and last value beside its end, pushed apart where they would meet."""
    ends = []
    for line in lines:
        if line.faint:
            continue
        last = float(line.y[np.isfinite(line.y)][-1])
        ends.append(((1 - float(up.place(last))) * height, last, line))
    ends.sort(key=lambda end: end[0])
    room = height // _LABEL_ROOM
    if len(ends) > room:  # keep the outermost and leave the rest to the hover box
        index = sorted({round(i * (len(ends) - 1) / (room - 1)) for i in range(room)})
        ends = [ends[i] for i in index]
    places = spread([end[0] for end in ends], _LABEL_ROOM, height - 8)
    return "".join(
        f'<span class="end" style="top:{_percent(place / height)};--c:{line.colour}">'
        f"<i>{escape(printable(line.label))}</i>{significant(last, digits)}</span>"
        for place, (_, last, line) in zip(places, ends, strict=True)
    )


def spread(places: Sequence[float], room: float, end: float) -> list[float]:
    """Return sorted places moved apart to at least `room`, as little as needed, within 0..end."""
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + room if moved else 0.0))
    limit = end
    for index in range(len(moved) - 1, -1, -1):
        moved[index] = min(moved[index], limit)
        limit = moved[index] - room
    return moved


def _across(x: np.ndarray) -> Axis:
    """Return the horizontal axis: exactly from the first to the last position, from 0 if near.

    A single position is at the end of its axis, where a line would end and its name is written.
    """
    low, high = float(np.nanmin(x)), float(np.nanmax(x))
    if 0 < low < 0.2 * high or 0 < low == high:
        low = 0.0
    return Axis(low, high if high > low else low + 1)


def _position(x: float) -> str:
    return f"{x:.0f}" if x == round(x) else significant(x, 4)


def _percent(share: float) -> str:
    return f"{100 * share:.2f}".rstrip("0").rstrip(".") + "%"
