"""What a model costs, printed: its layer tree with parameters, operations and cache by part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from coterie.cli.console import SafeConsole

if TYPE_CHECKING:
    from coterie.model import Counts

_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def print_tree(counts: Counts, console: Console) -> None:
    """Print the layer tree; equal neighbours have been joined by the counter."""
    table = Table(box=None, pad_edge=False)
    table.add_column("part", no_wrap=True)
    for column in ("parameters", "active", "FLOPs/token", "cache B/token"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    for row in counts.tree:
        table.add_row(
            f"{'  ' * row.depth}{row.name}",
            f"{row.parameters:,}",
            f"{row.active_parameters:,}",
            magnitude(row.flops) if row.flops else "",
            f"{row.cache_bytes:,}" if row.cache_bytes else "",
            row.detail,
        )
    wide(console).print(table)


def wide(console: Console) -> Console:
    """Return a console that breaks no row where nobody looks at it: a pipe has no width."""
    return console if console.is_terminal else SafeConsole(file=console.file, width=200)


def cost_rows(counts: Counts) -> list[tuple[str, str]]:
    """Return what a token costs in training and in decoding, in words for people."""
    context = counts.settings.context
    per_token = counts.cache_bytes_per_token
    return [
        ("forward per token", f"{flop(counts.flops_per_token())}, mean over {context:,} tokens"),
        ("training per token", f"{flop(counts.training_flops_per_token())}"),
        ("decoding a token", f"{flop(counts.decoding_flops())} at position {context:,}"),
        ("cache per token", f"{per_token:,} bytes (float32)"),
    ]


def weight_rows(weights: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what the weights take, in words for people."""
    sizes = weights["bytes_in_memory"]
    shown = "; ".join(f"{size:,} bytes in {kind}" for kind, size in sizes.items())
    rows = [("weights in memory", shown)]
    if "stored" in weights:
        rows.append(("weights on disk", f"{weights['bytes_on_disk']:,} bytes, {weights['stored']}"))
    return rows


def counts_as_json(counts: Counts) -> dict[str, Any]:
    """Return all counts as JSON values; operations are single ones, not mega or giga."""
    return {
        "parameters": counts.parameters,
        "active_parameters": counts.active_parameters,
        "context": counts.settings.context,
        "flops_per_token": counts.flops_per_token(),
        "training_flops_per_token": counts.training_flops_per_token(),
        "decoding_flops": counts.decoding_flops(),
        "cache_bytes_per_token": counts.cache_bytes_per_token,
        "tree": [asdict(row) for row in counts.tree],
    }


def magnitude(number: float) -> str:
    """Return a number in three figures or so, with k, M, G or T for thousands of it."""
    for unit, letter in _UNITS:
        if number >= unit:
            return f"{number / unit:,.2f} {letter}"
    return f"{number:,.0f}"


def flop(number: float) -> str:
    """Return a number of operations for people."""
    text = magnitude(number)
    return f"{text}FLOP" if text[-1].isalpha() else f"{text} FLOP"
