"""`coterie model convert`: a run's checkpoints in one file each, or in several."""

from __future__ import annotations

from coterie.cli.console import console, emit_json, next_step
from coterie.cli.words import one_target, read_words
from coterie.foundation.errors import UserError

_USAGE = "For example: coterie model convert latest   or: coterie model convert latest --files 8"


def convert(*words: str, files: int = 1, step: int | None = None, json: bool = False) -> None:
    """Put a run's checkpoints into one file each, or several: `coterie model convert RUN`.

    What several processes trained lies in a part for each. Every command reads both, and so does
    training with any number of processes; a single file is mapped into memory and is what other
    programs know. Each checkpoint is replaced at once when the new one is whole; every value stays
    as it is.

    Parameters
    ----------
    words
        The run.
    files
        Files of weights, and as many of moments.
    step
        Convert the checkpoint of this step alone.
    json
        Print JSON.
    """
    from coterie.checkpoint import find_checkpoint, list_checkpoints
    from coterie.checkpoint.convert import convert_checkpoint
    from coterie.foundation.runs import find_run

    parsed = read_words(words)
    run = find_run(one_target(parsed, "run", _USAGE))
    if parsed.overrides or parsed.overlays or not 1 <= files <= 10_000:
        raise UserError("Converting takes a run and 1 … 10000 files, no settings.", hint=_USAGE)
    paths = list_checkpoints(run.checkpoints)
    if step is not None or not paths:
        paths = [find_checkpoint(run, step)]
    with run.owned("converting", new=False):
        changed = [path.name for path in paths if convert_checkpoint(path, files)]
    if json:
        emit_json({"run": run.name, "path": str(run.path), "files": files, "converted": changed})
        return
    of = "one file" if files == 1 else f"{files} files"
    for path in paths:
        done = f"now lies in {of}" if path.name in changed else f"lies in {of} already"
        console.print(f"{path.name} {done}", soft_wrap=True)
    next_step(f'coterie generate {run.name} "Once"')
