"""`coterie tune`: what makes a run fastest on this machine."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from coterie.cli.console import console, emit_json, next_step, stderr
from coterie.cli.train import resolve_words
from coterie.cli.words import one_target, read_words
from coterie.foundation.disk import explain_disk_errors
from coterie.foundation.errors import UserError
from coterie.foundation.files import write_text_atomic
from coterie.foundation.places import find_place, is_taken

if TYPE_CHECKING:
    from coterie.benchmark.tune import Tuning

_USAGE = "For example: coterie tune quickstart"


def tune(
    *words: str,
    out: Path | None = None,
    seconds: float = 4.0,
    limit: float = 180.0,
    force: bool = False,
    json: bool = False,
) -> None:
    """Find what is fastest here: `coterie tune PRESET [key=value ...] [@overlay.yaml ...]`.

    Takes training steps of the preset and changes one thing at a time: precision, threads,
    micro-batch, attention back end, expert kernel, compiling. Each alternative takes turns with the
    best so far. What wins is checked once more, all together; if it is faster by more than chance,
    it is written as an overlay, a settings file for `coterie train`. Nothing is trained or kept.

    Parameters
    ----------
    words
        The preset, `key=value` changes and `@file.yaml` overlays, in any order.
    out
        Where to write the overlay; by default PRESET-tuned.yaml in this folder.
    seconds
        For each alternative, about; more make the result surer.
    limit
        Give an alternative up after so many seconds, compiling included.
    force
        Replace the file if it exists.
    json
        Print JSON.
    """
    from coterie.api.tuning import tune_settings

    parsed = read_words(words)
    target = one_target(parsed, "preset", _USAGE)
    resolved = resolve_words(target, parsed)
    file = out or Path(f"{Path(target).stem}-tuned.yaml")
    _require_place(file, force)
    found = tune_settings(
        resolved.settings, seconds, limit,
        lambda what: stderr.print(what, style="dim", soft_wrap=True),
    )  # fmt: skip
    if not json:
        _print(found)
    if found.changes:
        write_text_atomic(file, found.overlay(), replace=force)
    if json:
        emit_json({**found.as_json(), "file": str(file) if found.changes else None})
        return
    console.print(f"\n{found.verdict()}", soft_wrap=True)
    call = " ".join(["coterie train", target, *parsed.overrides])
    call += "".join(f" @{path}" for path in parsed.overlays)
    if found.changes:
        console.print(f"Wrote {file}.", soft_wrap=True)
        next_step(f"{call} @{file}")
    else:
        console.print("There is nothing to recommend; no file was written.")
        next_step(call)


def _require_place(file: Path, force: bool) -> None:
    """Make sure, before minutes are spent, that the file can be written.

    Raises:
        UserError: it exists, or its folder cannot be written to.
    """
    if file.is_dir():
        raise UserError(
            f"{file} is a folder.", hint=f"Name a file, --out {file / 'fast.yaml'} say."
        )
    if is_taken(file) and not force:
        raise UserError(f"{file} exists already.", hint="Choose another --out, or add --force.")
    if not find_place(file).stream:
        folder = next(each for each in file.absolute().parents if each.exists())
        with explain_disk_errors(str(file)), tempfile.TemporaryFile(dir=folder):
            pass


def _print(found: Tuning) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("factor", "choice", "tokens/s", "times as fast", ""):
        right = column in ("tokens/s", "times as fast")
        table.add_column(column, justify="right" if right else "left")
    for each in found.trials:
        rate = "" if each.rate is None else f"{each.rate:,.0f}"
        gain = "" if each.gain is None else "{:.2f} ({:.2f}–{:.2f})".format(*each.gain)
        note = "; ".join(filter(None, ("won" if each.chosen else "", each.note)))
        table.add_row(each.factor, each.choice, rate, gain, note, style="" if each.rate else "dim")
    console.print(table)
