"""`coterie train`: a preset and `key=value` words become a run."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from coterie.cli.console import console, emit_json, next_step, stderr
from coterie.cli.words import Words, one_target, read_words
from coterie.foundation.errors import RunError, UserError
from coterie.foundation.locks import OwnedError
from coterie.foundation.runs import RunDirectory, find_run, runs_root

if TYPE_CHECKING:
    from coterie.foundation.layers import Resolved
    from coterie.train.settings import RunSettings

_USAGE = "For example: coterie train quickstart train.steps=500 data.source=my_book.txt"


def train(
    *words: str,
    name: str | None = None,
    resume: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Train a model: `coterie train PRESET [key=value ...] [@overlay.yaml ...]`.

    The target is a preset (`coterie presets list`), or a settings file of yours. `scale=tiny` picks
    a preset's small twin. With --resume the target is a run's name, path or `latest`.

    Parameters
    ----------
    words
        The preset or run, `key=value` changes and `@file.yaml` overlays, in any order.
    name
        The run's name; by default the preset's, with a number when that is taken.
    resume
        Go on with a run from its newest sound checkpoint. An imported model that has not taken a
        step here yet takes every key but those of model and tokenizer.
    dry_run
        Print what would be run (settings with their origin, counts, memory, time) and stop.
    json
        With --dry-run, print the plan as JSON; otherwise print the result as JSON.
    """
    parsed = read_words(words)
    if resume:
        result, run = _resume(parsed)
    else:
        target = one_target(parsed, "preset", _USAGE)
        resolved = resolve(target, parsed)
        if dry_run:
            _show_plan(resolved, as_json=json)
            return
        run = make_run(name, Path(target).stem)
        result = run_training(resolved.settings, run, preset=target)
    if json:
        emit_json({"run": run.name, "path": str(run.path), **result.summary()})
    finish(run)


def make_run(name: str | None, base: str) -> RunDirectory:
    """Make the directory of a run that was given a name, or of a free name like `base`."""
    if name is None:
        return RunDirectory.create_fresh(runs_root(), base)
    return RunDirectory.create(runs_root(), name)


def resolve(target: str, words: Words) -> Resolved[RunSettings]:
    """Resolve a preset or settings file, its scale and the words laid over it."""
    from coterie.foundation.layers import load_settings
    from coterie.presets import preset_layers
    from coterie.train.settings import RunSettings

    words, scale = words.take("scale")
    return load_settings(RunSettings, [*preset_layers(target, scale), *words.layers()])


def run_training(
    settings: RunSettings,
    run: RunDirectory,
    *,
    preset: str,
    resumed_with: Collection[str] | None = None,
) -> Any:
    """Train under the live display and write the report, also of an interrupted run.

    A run is resumed where `resumed_with` names the keys that were changed on purpose, if only none.
    """
    from coterie.train import train as train_run
    from coterie.visualise.terminal import Display

    stderr.print(Text.assemble("Run ", (run.name, "heading"), f" in {run.path}/"), soft_wrap=True)
    theirs = False
    try:
        with Display(stderr) as display:
            return train_run(
                settings, run, preset=preset, observers=[display],
                resume=resumed_with is not None, changed=resumed_with,
            )  # fmt: skip
    except OwnedError:
        theirs = True
        raise
    finally:
        if not theirs:
            write_report_quietly(run)


def write_report_quietly(run: RunDirectory) -> None:
    """Write the run's report; a failure there must not hide how training ended."""
    from coterie.foundation.errors import CoterieError
    from coterie.visualise.report import write_report

    if not run.events.exists():
        return
    with contextlib.suppress(CoterieError, OSError):
        write_report(run)


def _resume(words: Words) -> tuple[Any, RunDirectory]:
    """Go on with a run; its length and where its text lies may change, more before any step."""
    from coterie.foundation.layers import file_layer, load_settings
    from coterie.train.settings import RunSettings
    from coterie.train.unchanged import PLACES

    run = find_run(one_target(words, "run", "For example: coterie train --resume latest", "latest"))
    changed = [word.partition("=")[0] for word in words.overrides]
    if _is_from_elsewhere(run):
        parts = [key for key in changed if key not in PLACES]
        if fixed := [key for key in parts if key.split(".")[0] in ("model", "tokenizer")]:
            raise RunError(
                f"{fixed[0]} cannot be changed: the weights of {run.name} belong to its model and "
                "tokenizer.",
                hint="Every key of data, train, sample and seed may be.",
            )
    elif words.overlays or any(key not in ("train.steps", *PLACES) for key in changed):
        raise RunError(
            "A resumed run goes on with its own settings; only train.steps may be changed, and "
            f"where the same text lies ({', '.join(PLACES)}).",
            hint=f"Start a new run for other settings: coterie train {run.config} key=value",
        )
    settings = load_settings(RunSettings, [file_layer(run.config), *words.layers()]).settings
    if words.overlays:
        changed += ["data", "train", "seed"]  # an overlay names what it likes of these
    return run_training(settings, run, preset=_preset_of(run), resumed_with=changed), run


def _is_from_elsewhere(run: RunDirectory) -> bool:
    """Whether a run holds a model that was imported and has not been trained here yet.

    Its checkpoint of step 0 names no text. One that training itself wrote before its first step
    does, and its weights, drawn from the run's seed, belong to the run's settings.
    """
    from coterie.checkpoint import list_checkpoints, step_of
    from coterie.checkpoint.layout import STATE
    from coterie.foundation.records import read_json

    found = list_checkpoints(run.checkpoints)
    if not found or step_of(found[-1]) > 0:
        return False
    try:
        state = read_json(found[-1] / STATE)
    except (UserError, FileNotFoundError):
        return False  # damaged; resuming will say so
    return isinstance(state, dict) and state.get("data") is None


def _preset_of(run: RunDirectory) -> str:
    """Return the preset that a run was started from, as its first event tells."""
    from coterie.foundation.event_log import read_events
    from coterie.train.events import RunStarted

    with contextlib.suppress(RunError):
        for event in read_events(run.events):
            if isinstance(event, RunStarted):
                return event.preset
    return run.name


def finish(run: RunDirectory) -> None:
    """Say where the results are and what can be done next."""
    stderr.print(f"Report: {run.report}", soft_wrap=True)
    next_step(
        f'coterie generate {run.name} "ROMEO:"  # write text with it',
        f"coterie evaluate {run.name}  # measure it",
        f"coterie train --resume {run.name} train.steps=...  # train it for longer",
    )


def _show_plan(resolved: Resolved[RunSettings], *, as_json: bool) -> None:
    """Print what a run would be."""
    from coterie.cli.plan import plan_as_json, print_plan

    if as_json:
        emit_json(plan_as_json(resolved))
    else:
        print_plan(resolved, console)
