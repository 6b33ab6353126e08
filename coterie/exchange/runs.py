"""A run directory for a model that was not trained here, so that every verb can use it.

NAME/
  config.yaml                 complete settings: the model's, the tokenizer's file, and training
                              settings gentle enough for fine-tuning
  events.jsonl                that the run was written, for the views
  tokenizer.json              the tokenizer, if the model has one
  origin.json                 the source of the model
  checkpoints/step-00000000/  the model, before any step
"""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import coterie
from coterie.checkpoint import LoadedModel, checkpoint_bytes, save_checkpoint
from coterie.checkpoint.layout import CONFIG, MODEL
from coterie.checkpoint.manifest import tensors_digest
from coterie.foundation.errors import CheckpointError, RunError
from coterie.foundation.event_log import EventLog
from coterie.foundation.events import Event
from coterie.foundation.files import atomic_directory, write_json_atomic
from coterie.foundation.layers import dump_yaml
from coterie.foundation.locks import own_unless_held
from coterie.foundation.records import validated
from coterie.foundation.runs import RunDirectory, check_name, fresh_name, own_fresh, runs_root
from coterie.model import Decoder, count
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.saving import FILE_NAME, save_tokenizer
from coterie.tokenizer.settings import TokenizerFile
from coterie.train.events import CheckpointSaved, RunEnded, RunStarted
from coterie.train.optimizer import AdamW
from coterie.train.progress import Progress
from coterie.train.randomness import random_state, seed_all, set_aside
from coterie.train.schedule import Cosine
from coterie.train.settings import RunSettings, TrainSettings

ORIGIN = "origin.json"


@contextlib.contextmanager
def own_new_run(
    name: str | None, what: str, *, base: str = "", root: Path | None = None
) -> Iterator[RunDirectory]:
    """Reserve the place of a new run, before a large model is read.

    Args:
        name: of the run; None: a free one derived from `base`.
        what: what is done, for the message to others: "importing".
        base: the beginning of the name if none was given.

    Raises:
        RunError: the name is not usable or taken.
        OwnedError: another process or thread is writing that run.
    """
    root = runs_root() if root is None else root
    if name is None:
        with own_fresh(root, base, what) as run:
            yield run
        return
    check_name(name)
    run = RunDirectory(Path(root) / name)
    with own_unless_held(run.path, what, hint="Choose another --name, or wait until it has ended."):
        if os.path.lexists(run.path):
            raise RunError(
                f"There is a run “{name}” already, at {run.path}.",
                hint=f"Choose another name, for example: --name {fresh_name(name, root)}",
            )
        yield run


def write_model_run(
    decoder: Decoder,
    tokenizer: Tokenizer | None,
    *,
    name: str,
    description: str,
    origin: Mapping[str, Any],
    root: Path | None = None,
    base: RunSettings | None = None,
) -> RunDirectory:
    """Write a model as a run whose checkpoint of step 0 every verb can use.

    The directory is written under another name and renamed when it is whole; the name is reserved
    meanwhile. Weights keep their dtype.

    Args:
        tokenizer: its own; None: it can be shown, extended and exported, but cannot read text.
        description: what it is, in a sentence.
        origin: for `origin.json`: `source`, `architecture`, `sha256` where they apply. The version
            of Coterie is added.
        base: settings whose data, sampling and seed are kept; None: the defaults.

    Raises:
        RunError: the name is not usable or taken.
        OwnedError: another process or thread is writing that run.
        UserError: the disk is full or not writable.
    """
    with own_new_run(name, "importing", root=root) as run, atomic_directory(run.path) as partial:
        settings = _settings(decoder, run, description, base)
        inside = RunDirectory(partial)
        began = time.perf_counter()
        saved = save_checkpoint(
            inside.checkpoints,
            0,
            model=decoder,
            optimizer_state={},
            state=_state(settings),
            settings=settings,
            tokenizer=tokenizer,
        )
        inside.samples.mkdir()
        if tokenizer is not None:
            save_tokenizer(tokenizer, partial / FILE_NAME)
        write_json_atomic(partial / ORIGIN, {**origin, "coterie": coterie.__version__})
        seconds = time.perf_counter() - began
        with EventLog(inside.events) as log:
            for event in _events(decoder, run, origin, checkpoint_bytes(saved), seconds):
                log(event)
        inside.write_config(dump_yaml(settings))
    return run


def write_derived_run(
    loaded: LoadedModel,
    decoder: Decoder,
    *,
    name: str | None,
    what: str,
    suffix: str,
    said: str,
    origin: Mapping[str, Any],
    instead_of: str = "",
) -> RunDirectory:
    """Write a model that was made from a checkpoint as a run of its own.

    Args:
        loaded: what it was made from; data, sampling and seed are kept.
        name: of the run; None: the old one's with the suffix.
        what: what is done, for the message to others: "extending".
        suffix: what tells the new run from the old.
        said: what was changed, a sentence for the description.
        origin: for `origin.json`, beside the checkpoint and its checksum.
        instead_of: a suffix that the new one replaces.

    Raises:
        CheckpointError: the settings are not those of a run of this version.
        UserError: as for `write_model_run`.
    """
    where = str(loaded.path / CONFIG)
    settings = validated(RunSettings, loaded.settings, where, CheckpointError)
    # A checkpoint lies in its run's directory of checkpoints.
    source = loaded.path.absolute().parent.parent.name
    base = f"{source.removesuffix(f'-{instead_of}')}-{suffix}"
    with own_new_run(name, what, base=base) as run:
        return write_model_run(
            decoder,
            loaded.own_tokenizer,
            name=run.name,
            description=f"{settings.description} {said}".strip(),
            origin={
                "source": str(loaded.path),
                "architecture": f"{source}, {suffix}",
                "sha256": tensors_digest(loaded.path, MODEL),
                **origin,
            },
            base=settings,
        )


def _settings(
    decoder: Decoder, run: RunDirectory, description: str, base: RunSettings | None
) -> RunSettings:
    """Return the complete settings of the run, with gentle settings for further training."""
    kept = {} if base is None else {"data": base.data, "sample": base.sample, "seed": base.seed}
    return RunSettings(
        description=description,
        tokenizer=TokenizerFile(path=Path(FILE_NAME)),  # relative to the run
        model=decoder.settings,
        train=TrainSettings(
            steps=200,
            batch_size=8,
            optimizer=AdamW(learning_rate=3e-5, weight_decay=0.01),
            schedule=Cosine(),
            evaluate_every=50,
            checkpoint_every=100,
        ),
        **kept,
    )


def _state(settings: RunSettings) -> dict[str, Any]:
    with set_aside():
        seed_all(settings.seed)
        random = random_state()
    return {**asdict(Progress()), "data": None, "random": random, "clip": [], "loss_scale": None}


def _events(
    decoder: Decoder, run: RunDirectory, origin: Mapping[str, Any], size: int, seconds: float
) -> tuple[Event, ...]:
    counts = count(decoder.settings)
    first = next(decoder.parameters())
    checkpoint = run.checkpoints / "step-00000000"
    return (
        RunStarted(
            name=run.name,
            preset=str(origin.get("architecture") or "imported"),
            parameters=counts.parameters,
            active_parameters=counts.active_parameters,
            steps=0,
            tokens_per_step=0,
            device=first.device.type,
            precision=str(first.dtype).removeprefix("torch."),
        ),
        CheckpointSaved(step=0, path=str(checkpoint), bytes=size, seconds=seconds),
        RunEnded(
            step=0,
            status="finished",
            message=f"made from {origin.get('source', 'another model')}",
            seconds=seconds,
        ),
    )
