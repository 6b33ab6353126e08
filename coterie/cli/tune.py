"""`coterie tune`: what makes a run fastest on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from coterie.cli.console import console, emit_json, next_step, stderr
from coterie.cli.train import resolve_words
from coterie.cli.words import one_target, read_words
from coterie.foundation.errors import UserError
from coterie.foundation.files import write_text_atomic
from coterie.foundation.places import is_taken

if TYPE_CHECKING:
    from coterie.benchmark.tune import Tuning

_USAGE = "For example: coterie tune quickstart"


def tune(
    *words: str,
    out: Path | None = None,
    seconds: float = 4.0,
    force: bool = False,
    json: bool = False,
) -> None:
    """Find what is fastest here: `coterie tune PRESET [key=value ...] [@overlay.yaml ...]`.

    Takes steps of the run, changing one thing at a time: precision, threads, micro-batch, attention
    back end, expert kernel, compiling. Each meets the best so far in turns. What is faster is
    written as an overlay, with the gain measured for all of it together.

    Parameters
    ----------
    words
        The preset, `key=value` changes and `@file.yaml` overlays, in any order.
    out
        Where to write the overlay; by default PRESET-tuned.yaml in this folder.
    seconds
        For each thing that is tried, about.
    force
        Replace the file if it exists.
    json
        Print JSON.
    """
    from coterie.api.tuning import tune_settings

    parsed = read_words(words)
    target = one_target(parsed, "preset", _USAGE)
    file = out or Path(f"{Path(target).stem}-tuned.yaml")
    if is_taken(file) and not force:
        raise UserError(f"{file} exists already.", hint="Choose another --out, or add --force.")
    resolved = resolve_words(target, parsed)
    found = tune_settings(
        resolved.settings, seconds, lambda what: stderr.print(what, style="dim", soft_wrap=True)
    )
    if found.changes:
        write_text_atomic(file, found.overlay(), replace=force)
    if json:
        emit_json({**found.as_json(), "file": str(file) if found.changes else None})
        return
    _print(found)
    call = " ".join(["coterie train", target, *parsed.overrides])
    overlays = "".join(f" @{path}" for path in parsed.overlays)
    if not found.changes:
        console.print("\nNothing is faster than the settings as they are.")
        next_step(f"{call}{overlays}")
        return
    assert found.gain is not None
    median, low, high = found.gain
    console.print(
        f"\nWrote {file}: {median:.2f} times as fast as before ({low:.2f}–{high:.2f}).",
        soft_wrap=True,
    )
    next_step(f"{call}{overlays} @{file}")


def _print(found: Tuning) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("factor", "choice", "tokens/s", "× best so far", ""):
        right = column in ("tokens/s", "× best so far")
        table.add_column(column, justify="right" if right else "left")
    for each in found.trials:
        rate = "" if each.rate is None else f"{each.rate:,.0f}"
        gain = "" if each.gain is None else "{:.2f} ({:.2f}–{:.2f})".format(*each.gain)
        note = "; ".join(filter(None, ("taken" if each.chosen else "", each.note)))
        table.add_row(each.factor, each.choice, rate, gain, note, style="" if each.rate else "dim")
    console.print(table)
