"""Training from Python: a preset and what is changed of it become a run, shown as it goes."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

import coterie
from coterie.align.methods import method_of
from coterie.api.given import layer_of, resolve
from coterie.checkpoint import list_checkpoints, step_of
from coterie.checkpoint.layout import STATE
from coterie.foundation.errors import CoterieError, RunError, UserError
from coterie.foundation.event_log import read_events
from coterie.foundation.layers import Layer, file_layer, leaves
from coterie.foundation.locks import OwnedError
from coterie.foundation.records import read_json
from coterie.foundation.runs import RunDirectory, find_run, runs_root
from coterie.parallel.ranks import ALONE, Ranks
from coterie.train import RunSettings, TrainResult, run_settings
from coterie.train import train as train_run
from coterie.train.events import RunStarted
from coterie.train.look import Look, StepLook
from coterie.train.unchanged import LENGTH, PLACES
from coterie.visualise.console import stderr
from coterie.visualise.report import write_report
from coterie.visualise.terminal import Display

if TYPE_CHECKING:
    from coterie.api.runs import Run


def train(
    preset: str, settings: Mapping[str, Any] | None = None, *, name: str | None = None
) -> Run:
    """Train a model and return its run.

        run = coterie.train("quickstart", {"train.steps": 200, "data.source": "my_book.txt"})

    Args:
        preset: a preset's name (`coterie presets list`), or the path of a settings file.
        settings: what to change of it, by dotted keys or nested; `scale` picks one of its scales,
            `mode` is `speed` or `memory`.
        name: of the run; None: the preset's, with a number when that is taken.

    Raises:
        SettingsError: anything is wrong with the settings; every problem is listed.
        UserError: data, name or device cannot be used.
        TrainingError: a gradient was not finite.
        Interrupted: Ctrl-C; a checkpoint was written, and `run.resume()` goes on.
    """
    given = dict(settings or {})
    scale = given.pop("scale", None)
    mode = given.pop("mode", None)
    resolved = resolve(preset, [layer_of(given)] if given else [], scale, mode)
    directory = make_run(name, Path(preset).stem)
    run_training(resolved.settings, directory, preset=preset)
    return coterie.Run(directory)


def resume(target: str | Path = "latest", settings: Mapping[str, Any] | None = None) -> Run:
    """Go on with a run from its newest sound checkpoint, and return it.

    Args:
        target: a run's name, `latest`, or its path.
        settings: what to change: `train.steps` or `train.epochs`, and where the same text lies.

    Raises:
        RunError: there is no such run, or it cannot be resumed like this.
        UserError, TrainingError, Interrupted: as for `train`.
    """
    directory = find_run(target)
    layer = layer_of(settings or {})
    keys = [".".join(key) for key, _ in leaves(layer.values)]
    resume_training(directory, [layer], keys)
    return coterie.Run(directory)


def make_run(name: str | None, base: str) -> RunDirectory:
    """Make the directory of a run that was given a name, or of a free name like `base`."""
    if name is None:
        return RunDirectory.create_fresh(runs_root(), base)
    return RunDirectory.create(runs_root(), name)


def run_training(
    settings: RunSettings,
    run: RunDirectory,
    *,
    preset: str,
    resumed_with: Collection[str] | None = None,
    look: Look = StepLook,
    ranks: Ranks = ALONE,
) -> TrainResult:
    """Train under the live display and write the report, also of an interrupted run.

    What `look` sees in steps the display shows. A run is resumed where
    `resumed_with` names the keys that were changed on purpose, if only none. Of several processes
    (`ranks`) the first one alone shows and writes.
    """
    given = {"preset": preset, "resume": resumed_with is not None, "changed": resumed_with,
             "look": look, "method": method_of(settings, run), "ranks": ranks}  # fmt: skip
    if not ranks.is_first:
        return train_run(settings, run, **given)
    stderr.print(Text.assemble("Run ", (run.name, "heading"), f" in {run.path}/"), soft_wrap=True)
    theirs = False
    try:
        with Display(stderr) as display:
            return train_run(settings, run, observers=[display], **given)
    except OwnedError:
        theirs = True
        raise
    finally:
        if not theirs:
            _write_report_quietly(run)


def resume_training(
    run: RunDirectory, layers: Sequence[Layer], keys: Sequence[str], *, files: bool = False,
    look: Look = StepLook, ranks: Ranks = ALONE,
) -> TrainResult:  # fmt: skip
    """Go on with a run; its length and where its text lies may change, more before any step.

    Args:
        run: its directory.
        layers: what is changed.
        keys: the dotted keys that were changed by name.
        files: whether some of the layers are files, which may change anything.
        look: looks into steps, as in `train`.
        ranks: the processes that train it at once.

    Raises:
        RunError: a key is changed that the run's weights depend on.
    """
    changed = list(keys)
    if _is_from_elsewhere(run):
        parts = [key for key in changed if key not in PLACES]
        if fixed := [key for key in parts if key.split(".")[0] in ("model", "tokenizer")]:
            raise RunError(
                f"{fixed[0]} cannot be changed: the weights of {run.name} belong to its model and "
                "tokenizer.",
                hint="Every key of data, train, sample and seed may be.",
            )
    elif files or any(not _may_change(key) for key in changed):
        raise RunError(
            "A resumed run goes on with its own settings; only train.steps or train.epochs may be "
            f"changed, where the same text lies ({', '.join(PLACES)}), and parallel.",
            hint=f"Start a new run for other settings: coterie train {run.config} key=value",
        )
    settings = run_settings([file_layer(run.config), *layers]).settings
    if files:
        changed += ["data", "train", "seed"]  # a file names what it likes of these
    return run_training(
        settings, run, preset=_preset_of(run), resumed_with=changed, look=look, ranks=ranks
    )


def _may_change(key: str) -> bool:
    return key in (*LENGTH, *PLACES) or key.split(".")[0] == "parallel"


def _write_report_quietly(run: RunDirectory) -> None:
    """Write the run's report; a failure there must not hide how training ended."""
    if not run.events.exists():
        return
    with contextlib.suppress(CoterieError, OSError):
        write_report(run)


def _is_from_elsewhere(run: RunDirectory) -> bool:
    """Whether a run holds a model that was imported and has not been trained here yet.

    Its checkpoint of step 0 names no text. One that training itself wrote before its first step
    does, and its weights, drawn from the run's seed, belong to the run's settings.
    """
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
    with contextlib.suppress(RunError):
        for event in read_events(run.events):
            if isinstance(event, RunStarted):
                return event.preset
    return run.name
