"""A session to a checkpoint and back, bit for bit.

Kept: weights and buffers (balance biases), momentum and moments, loss scale, clip history, every
random state, step, tokens, losses, and of a stream where it is read. The schedule and other data's
position are functions of the step, and the settings travel with the rest, so nothing else is needed
to go on as if never stopped.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from coterie.checkpoint import Checkpoint, load_tensors, read_settings, read_state, save_checkpoint
from coterie.checkpoint.layout import CONFIG, MODEL, OPTIMIZER, list_checkpoints, stored
from coterie.checkpoint.manifest import read_manifest
from coterie.checkpoint.tensor_file import read_tensors, tensor_names
from coterie.foundation.errors import CheckpointError, CoterieError
from coterie.foundation.records import validated
from coterie.foundation.runs import RunDirectory
from coterie.parallel.shard import copied
from coterie.quantise import stored_kinds
from coterie.train.average import trained_name
from coterie.train.divided_state import kept_parts, kept_weights, restore_parts
from coterie.train.memory import shadow_decoder
from coterie.train.method import Method
from coterie.train.pretraining import Pretraining
from coterie.train.progress import Progress
from coterie.train.randomness import random_state, set_random_state
from coterie.train.roles import role_parameters
from coterie.train.session import Session
from coterie.train.settings import RunSettings

_USUAL = Pretraining()


def save_session(session: Session, root: Path | None = None) -> Path:
    """Write a checkpoint of the session as it is now and return its path.

    Args:
        session: the run in training.
        root: the directory of checkpoints; the run's own if None.

    Raises:
        UserError: the disk is full or not writable.
    """
    with session.stepper.averaged():
        return checkpoint_writer(session, root)()


def checkpoint_writer(
    session: Session, root: Path | None = None, *, copied: bool = False
) -> Callable[[], Path]:
    """Return what writes a checkpoint of the session as it is now, its average in the decoder.

    Args:
        session: the run in training, inside `session.stepper.averaged()`.
        root: the directory of checkpoints; the run's own if None.
        copied: whether to copy all tensors into host memory, so that the session may go on before
            the checkpoint is written.
    """
    stepper, train = session.stepper, session.settings.train
    scale = stepper.loss_scale
    state: dict[str, Any] = {
        **asdict(session.progress),
        "data": session.store.fingerprint,
        "random": random_state(),
        "clip": stepper.clipper.state(),
        "loss_scale": None if scale is None else scale.state(),
        "choices": {
            "device": session.precision.device.type,
            "precision": session.precision.name,
            "compile": session.compiled,
            "pieces": stepper.pieces,
        },
        "stream": session.stream and session.stream.position(session.first_row),
    }
    weights = kept_weights(session)
    if session.together is not None:
        moments = kept_parts(session)
    else:
        trained = {} if stepper.average is None else stepper.average.trained()
        moments = {**stepper.optimizer.state(), **trained, **stepper.trainable.kept()}
    return functools.partial(
        save_checkpoint,
        root or session.run.checkpoints,
        session.progress.step,
        model=_copied(weights) if copied else weights,
        optimizer_state=_copied(moments) if copied else moments,
        state=state,
        settings=session.settings,
        tokenizer=session.tokenizer,
        run=session.identity,
        keep=train.keep,
        keep_every=train.keep_every,
        group=session.saving,
    )


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies in host memory."""
    return {name: copied(each) for name, each in tensors.items()}


def find_misfit(path: Path, training: str | None = None, method: Method = _USUAL) -> str | None:
    """Return why training cannot go on from a checkpoint that is sound by itself, if it cannot.

    Its settings must be a run's, its moments those of their optimizer, and its tokens those that so
    many steps read. With `training`, it must be of that one or of none.
    """
    try:
        if training is not None and read_manifest(path).run not in (None, training):
            return "it is left over from another training"
        settings = checkpoint_settings(path)
        state = read_state(path)
        expected = settings.stages.tokens(state.step)
        if state.tokens != expected:
            return f"{state.step:,} steps read {expected:,} tokens, not {state.tokens:,}"
        hollow = shadow_decoder(settings.model)
        trainable = method.trainable(hollow)
        optimizer = settings.train.optimizer.build(trainable.parameters)
        moments = read_tensors(stored(path, OPTIMIZER))
        used = optimizer.load_state(moments) | set(trainable.kept())
        if settings.train.ema is not None:
            used |= {trained_name(each.name) for each in role_parameters(hollow)}
        if stray := sorted(set(moments) - used):
            return f"{stray[0]} has no place in the optimizer that {CONFIG} describes"
    except CoterieError as error:
        return error.message
    return None


def checkpoint_settings(path: Path) -> RunSettings:
    """Return the settings that a checkpoint was trained with.

    Raises:
        CheckpointError: they are not those of a run of this version.
    """
    return validated(RunSettings, read_settings(path), CONFIG, CheckpointError)


def restore_session(session: Session, checkpoint: Checkpoint) -> None:
    """Put a freshly opened session into the state of a checkpoint.

    Raises:
        CheckpointError: it belongs to another model, optimizer, tokenizer or text, or its weights
            are quantised.
    """
    _refuse_quantised(checkpoint.model, checkpoint.path)
    if session.stream is not None and checkpoint.state.get("stream"):
        session.stream.go_on(checkpoint.state["stream"])
    _check_belongs(session, checkpoint)
    if session.together is None:
        _restore_tensors(session, checkpoint)
    else:
        restore_parts(session, checkpoint.path)
    state = checkpoint.state
    session.stepper.clipper.load_state(state["clip"])
    if session.stepper.loss_scale is not None and state["loss_scale"] is not None:
        session.stepper.loss_scale.load_state(state["loss_scale"])
    session.progress = Progress(**{name: state[name] for name in asdict(Progress())})
    schedule = session.settings.train.schedule
    session.stepper.lowered = schedule.lowered(session.progress.plateaus)
    session.identity = checkpoint.run or session.identity
    set_random_state(state["random"])


def _restore_tensors(session: Session, checkpoint: Checkpoint) -> None:
    load_tensors(session.decoder, checkpoint.model, checkpoint.path)
    used = session.stepper.optimizer.load_state(checkpoint.optimizer)
    used |= session.stepper.trainable.restore(checkpoint.optimizer)
    if session.stepper.average is not None:
        used |= session.stepper.average.load(checkpoint.optimizer)
    if left := sorted(set(checkpoint.optimizer) - used):
        raise CheckpointError(
            f"The checkpoint {checkpoint.path} is of another optimizer: {left[0]} has no place "
            "in this run's.",
            hint="Resume with the settings the run was started with.",
        )


def require_trainable(run: RunDirectory) -> None:
    """Refuse a run whose newest checkpoint holds quantised weights, before any data is read.

    Raises:
        CheckpointError: it does. One that cannot be read is left to whoever looks for damage.
    """
    for path in list_checkpoints(run.checkpoints)[-1:]:
        names: list[str] = []
        with contextlib.suppress(CheckpointError):
            names = tensor_names(stored(path, MODEL))
        _refuse_quantised(names, path)


def _refuse_quantised(names: Iterable[str], path: Path) -> None:
    if kinds := set(stored_kinds(names).values()):
        raise CheckpointError(
            f"The weights of {path} are {min(kinds)}: they write and score text, but "
            "cannot be trained, for a step changes a weight by less than they tell apart.",
            hint="Train the run that they were made from, which origin.json in the run names as "
            "its source, and quantise it again: coterie model quantise RUN",
        )


def _check_belongs(session: Session, checkpoint: Checkpoint) -> None:
    own = checkpoint.tokenizer
    if own is None or own.fingerprint != session.tokenizer.fingerprint:
        raise CheckpointError(
            f"The checkpoint {checkpoint.path} was made with another tokenizer than this run's "
            "data, so its weights mean other tokens.",
            hint="Resume with the data and tokenizer the run was started with.",
        )
    # A model that was imported has been trained on no text of ours: any may come first.
    if checkpoint.state["data"] not in (None, session.store.fingerprint):
        raise CheckpointError(
            f"The text that this run trains on has changed since {checkpoint.path} was written.",
            hint="Restore the text, or start a new run.",
        )
