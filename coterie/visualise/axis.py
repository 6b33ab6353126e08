"""One axis of a chart: where values stand, and which round numbers mark it."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Axis:
    """A range of values laid out from 0 to 1, evenly or by logarithm."""

    low: float
    high: float
    log: bool = False

    def place(self, values: np.ndarray | float) -> np.ndarray:
        """Return where values stand: 0 at the low end, 1 at the high end; not a number stays so."""
        values = np.asarray(values, dtype=np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            if self.log:
                span = math.log(self.high / self.low)
                placed = np.log(np.maximum(values, 1e-300) / self.low) / span
            else:
                placed = (values - self.low) / (self.high - self.low)
        return np.where(np.isfinite(values), placed, np.nan)

    def ticks(self, about: int = 5) -> list[float]:
        """Return round numbers inside the range, about as many as asked."""
        if self.log:
            return _log_ticks(self.low, self.high, about)
        step = _round_step((self.high - self.low) / about)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(n * step, 12) for n in range(first, last + 1)]


def axis_for(values: np.ndarray, *, log: bool = False, at_least: float | None = None) -> Axis:
    """Return an axis that holds all finite values with a little room.

    Args:
        log: by logarithm, if all values are positive; otherwise evenly.
        at_least: a value that the axis begins at or includes, such as zero.
    """
    known = values[np.isfinite(values)]
    if at_least is not None:
        known = np.append(known, at_least)
    if not len(known):
        return Axis(0.0, 1.0)
    low, high = float(known.min()), float(known.max())
    if log and low > 0 and high / low > 1.5:
        room = (high / low) ** 0.04
        return Axis(low if at_least == low else low / room, high * room, log=True)
    if high - low < 1e-9 * max(abs(high), abs(low), 1e-30):
        room = abs(high) * 0.1 or 1.0
        return Axis(low - (0 if at_least == low else room), high + room)
    room = (high - low) * 0.06
    return Axis(low if at_least == low else low - room, high + room)


def tick_text(value: float, ticks: list[float]) -> str:
    """Return a tick's label, with as many decimals as the ticks need to be told apart."""
    if value == 0:
        return "0"
    largest = max(abs(t) for t in ticks)
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if largest >= scale * (10 if unit == "k" else 1):
            return f"{_plain(value / scale)}{unit}".replace("-", "−")
    if largest < 1e-3:
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{_plain(float(mantissa))}e{int(exponent)}".replace("-", "−")
    return _plain(value).replace("-", "−")


def _plain(value: float) -> str:
    return f"{value:,.6f}".rstrip("0").rstrip(".")


def _round_step(rough: float) -> float:
    """Return the number among 1, 2, 2.5, 5 × 10^n next above a rough step."""
    power = 10.0 ** math.floor(math.log10(rough))
    for factor in (1, 2, 2.5, 5, 10):
        if factor * power >= rough * 0.999:
            return factor * power
    raise AssertionError(rough)


def _log_ticks(low: float, high: float, about: int) -> list[float]:
    """Return the finest of several sets of round numbers that does not crowd the axis."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    best: list[float] = []
    for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), tuple(np.arange(1, 10, 0.5))):
        ticks = [f * 10.0**p for p in powers for f in factors]
        inside = [round(t, 12) for t in ticks if low <= t <= high]
        if not best or len(inside) <= about + 2:
            best = inside
    if len(best) >= 2 or high / low > 3:
        apart = math.log(high / low) / (2.5 * about)
        return [t for i, t in enumerate(best) if i == 0 or math.log(t / best[i - 1]) > apart]
    return [t for t in Axis(low, high).ticks(about) if t > 0]
