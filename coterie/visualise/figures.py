"""Figures as people read them: counts, rates, times and sizes with their units."""

import math

from coterie.foundation.printable import printable

MINUS = "−"
HELD_OUT = ("valid", "validation", "val", "test")  # names that a held-out split goes by


def significant(value: float | None, digits: int = 3) -> str:
    """Return a number with so many significant digits, without needless zeros or exponents."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    if value == 0:
        return "0"
    if 1e-4 <= abs(value) < 1e6:
        rounded = float(f"{abs(value):.{digits - 1}e}")  # 0.9999 becomes 1.00, not 1.000
        before_point = math.floor(math.log10(rounded)) + 1
        text = f"{value:,.{max(0, digits - before_point)}f}"
        if abs(value) < 0.01:
            text = text.rstrip("0")
    else:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        text = f"{mantissa}e{int(exponent)}"
    return text.replace("-", MINUS)


def loss(value: float | None) -> str:
    """Return a loss with three decimals, the resolution at which runs differ."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.3f}"


def count(value: float | None) -> str:
    """Return a count in full below 100,000 and with k, M, G or T above."""
    if value is None or not math.isfinite(value):
        return "–"
    if abs(value) < 100_000:
        return f"{value:,.0f}"
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size * 0.9995:
            return f"{significant(value / size)} {unit}"
    raise AssertionError(value)


def duration(seconds: float | None) -> str:
    """Return a time span: `850 ms`, `42 s`, `3 min 02 s`, `5 h 10 min`, `2 d 04 h`."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds == 0:
        return "0 s"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


def clock(seconds: float) -> str:
    """Return a time span as a clock shows it: `0:48`, `12:05`, `1:02:03`."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def size(number: float | None) -> str:
    """Return a number of bytes in decimal units."""
    if number is None:
        return "–"
    if number < 1000:
        return f"{number:.0f} bytes"
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= scale * 0.9995:
            return f"{significant(number / scale)} {unit}"
    raise AssertionError(number)


def percent(fraction: float | None) -> str:
    """Return a fraction in per cent."""
    return "–" if fraction is None or not math.isfinite(fraction) else f"{fraction:.1%}"


def times(ratio: float | None) -> str:
    """Return a ratio such as `1.08×`."""
    return "–" if ratio is None or not math.isfinite(ratio) else f"{ratio:.2f}×"


def split_name(split: str) -> str:
    """Return what people call a split of the data."""
    return "validation" if split in ("valid", "val") else printable(split)
