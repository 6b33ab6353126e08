"""Where the time of training steps goes, as two tables."""

from collections.abc import Iterator, Sequence

from rich.table import Table

from coterie.foundation.printable import printable
from coterie.train.events import StepsProfiled
from coterie.visualise.figures import percent, significant

_MOST = 15


def profile_tables(event: StepsProfiled) -> Iterator[Table]:
    """Yield the times by part of the model, and the dearest operations."""
    counted = "device" if event.on_device else "processor"
    whole = f"One training step: {_ms(event.seconds)} ms of wall clock, mean of {event.steps}"
    total = sum(part.forward + part.backward for part in event.parts)
    rows = [
        (part.name, _ms(part.forward), _ms(part.backward), _share(part.forward + part.backward,
                                                                  event.seconds))
        for part in event.parts
    ]  # fmt: skip
    if event.on_device:
        idle = max(event.seconds - total, 0.0)
        rows.append(("(the device waits)", _ms(idle), "", _share(idle, event.seconds)))
    names = ("part", f"forward, {counted} ms", "backward, ms", "of the step")
    yield figures_table(whole, names, rows)
    yield figures_table(
        "The dearest operations of a step",
        ("part", "operation", "calls", f"{counted} ms", "of the step"),
        [
            (
                operation.part + (" (backward)" if operation.backward else ""),
                operation.name,
                f"{operation.calls:,.0f}",
                _ms(operation.seconds),
                _share(operation.seconds, event.seconds),
            )
            for operation in event.operations[:_MOST]
        ],
    )


def figures_table(title: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a table whose figures stand right, and whose text may wrap."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in names:
        text = name in ("part", "operation")
        table.add_column(name, justify="left" if text else "right", no_wrap=not text)
    for row in rows:
        table.add_row(*(printable(cell) for cell in row))
    return table


def _ms(seconds: float) -> str:
    return significant(1e3 * seconds)


def _share(seconds: float, of: float) -> str:
    return percent(seconds / of) if of else "–"
