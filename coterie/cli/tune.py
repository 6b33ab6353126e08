"""`coterie tune`: what makes a run fastest on this machine."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
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
    from coterie.train import RunSettings

_USAGE = "For example: coterie tune quickstart"


def tune(
    *words: str,
    out: Path | None = None,
    seconds: float = 4.0,
    limit: float = 180.0,
    micro_batch: bool = False,
    memory: float | None = None,
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
    micro_batch
        Find the largest micro-batch that fits into memory instead, with real steps; the overlay
        then says into how few pieces a batch is cut. Compiled code is left out.
    memory
        GiB that a run may take on the CPU, for --micro-batch; by default what this process holds
        and eight tenths of what is free. A GPU's own memory is its limit.
    force
        Replace the file if it exists.
    json
        Print JSON.
    """
    parsed = read_words(words)
    target = one_target(parsed, "preset", _USAGE)
    resolved = resolve_words(target, parsed)
    file = out or Path(f"{Path(target).stem}-tuned.yaml")
    _require_place(file, force)
    call = " ".join(["coterie train", target, *parsed.overrides])
    call += "".join(f" @{path}" for path in parsed.overlays)
    if micro_batch:
        _find_micro_batch(resolved.settings, memory, file, call, replace=force, json=json)
        return
    if memory is not None:
        raise UserError("--memory is for --micro-batch alone.", hint="Add --micro-batch.")
    _find_fastest(
        resolved.settings, (seconds, limit), file, call, replace=force, json=json
    )  # fmt: skip


def _find_fastest(
    settings: RunSettings, times: tuple[float, float], file: Path, call: str, *, replace: bool,
    json: bool,
) -> None:  # fmt: skip
    """Find what is fastest, write it if anything is, and say how to train with it."""
    from coterie.api.tuning import tune_settings

    found = tune_settings(
        settings, *times,
        lambda what: stderr.print(what, style="dim", soft_wrap=True),
    )  # fmt: skip
    if not json:
        _print(found)
    if found.changes:
        write_text_atomic(file, found.overlay(), replace=replace)
    if json:
        emit_json({**found.as_json(), "file": str(file) if found.changes else None})
        return
    console.print(f"\n{found.verdict()}", soft_wrap=True)
    if found.changes:
        console.print(f"Wrote {file}.", soft_wrap=True)
        next_step(f"{call} @{file}")
    else:
        console.print("There is nothing to recommend; no file was written.")
        next_step(call)


def _find_micro_batch(
    settings: RunSettings, memory: float | None, file: Path, call: str, *, replace: bool, json: bool
) -> None:
    """Find what fits, write it, and say how to train with it."""
    from coterie.benchmark.largest import find_micro_batch

    if memory is not None and not 0 < memory < 1e6:
        raise UserError(f"--memory {memory:g} is no size.", hint="Say GiB: --memory 12")
    found = find_micro_batch(
        settings, None if memory is None else int(memory * 2**30),
        lambda what: stderr.print(what, style="dim", soft_wrap=True),
    )  # fmt: skip
    if found.pieces is None:
        raise UserError(
            "Not even one row fits into memory.",
            hint="Lower model.context, set train.activation_checkpointing=true, or make the model "
            "smaller.",
        )
    text = f"# Made by coterie tune --micro-batch: {found.rows} rows fit at once.\n"
    text += f"train:\n  gradient_accumulation: {found.pieces}\n"
    write_text_atomic(file, text, replace=replace)
    if json:
        emit_json({**asdict(found), "file": str(file)})
        return
    size = settings.train.batch_size
    console.print(
        f"{found.rows} of a batch's {size} rows fit at once; in {found.pieces} equal micro-batches "
        f"of {size // found.pieces} the batch fits. Wrote {file}.",
        soft_wrap=True,
    )
    next_step(f"{call} @{file}")


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
