"""The memory of one watched step as a table, for the terminal and the page alike."""

from rich.table import Table

from coterie.train.events import MemoryProfiled
from coterie.visualise.figures import size
from coterie.visualise.profile import figures_table

HEAD = ("part", "allocated", "held: forward", "backward", "update")
_PASSES = {"forward": "the forward pass", "backward": "the backward pass", "update": "the update"}


def memory_title(event: MemoryProfiled) -> str:
    """Return what a watched step held, in a sentence."""
    most = f"{size(sum(event.at_peak().values()))} at most, in {_PASSES[event.peak_phase]}"
    if event.process_bytes is None:
        return f"Memory of step {event.step:,}: {most}"
    beside = "torch's allocator has reserved" if event.on_device else "the whole process holds"
    return f"Memory of step {event.step:,}: {most}; {beside} {size(event.process_bytes)}"


def memory_rows(event: MemoryProfiled) -> list[tuple[str, ...]]:
    """Return a row for each part and one for all together, under `HEAD`."""
    rows = [
        (each.name, each.allocated, each.forward, each.backward, each.update)
        for each in event.parts
    ]  # fmt: skip
    sums = [sum(column) for column in zip(*(row[1:] for row in rows), strict=True)]
    cells = [(row[0], *(_cell(number) for number in row[1:])) for row in rows]
    return [*cells, ("all together", *map(_cell, sums))]


def memory_table(event: MemoryProfiled) -> Table:
    return figures_table(memory_title(event), HEAD, memory_rows(event))


def _cell(number: int) -> str:
    return size(number) if number else "–"
