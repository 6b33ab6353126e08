"""What a divided run keeps and reads again: each process the parts that it holds, none the whole.

A checkpoint may have been written by any other number of processes, or by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from coterie.checkpoint import read_into
from coterie.checkpoint.group import Group
from coterie.checkpoint.layout import MODEL, OPTIMIZER, stored
from coterie.checkpoint.tensor_file import Whole, find_wholes, open_tensors
from coterie.checkpoint.tensors import differences, model_tensors
from coterie.foundation.errors import CheckpointError
from coterie.parallel.shard import like, local
from coterie.parallel.zero import Zero
from coterie.train.average import trained_name
from coterie.train.divided import DividedTrainable
from coterie.train.optimizer.shared import SharedOptimizer, parameter_of
from coterie.train.session import Session
from coterie.train.zero import ZeroOptimizer


def kept_parts(session: Session) -> dict[str, Tensor]:
    """Return moments and, beside an average, the weights in training, as parts of wholes."""
    stepper, trainable = session.stepper, session.stepper.trainable
    if isinstance(stepper.optimizer, ZeroOptimizer):
        return stepper.optimizer.state()
    assert isinstance(trainable, DividedTrainable)
    trained = {} if stepper.average is None else stepper.average.trained()
    wholes = {trained_name(each.name): each.tensor for each in trainable.whole}
    parts = {name: like(part, wholes[name]) for name, part in trained.items()}
    return {**stepper.optimizer.state(), **parts}


def kept_weights(session: Session) -> dict[str, Tensor]:
    """Return weights, or parts of wholes: copies where they are whole for this moment only."""
    together = session.together
    if not isinstance(together, Zero) or not together.divides:
        return model_tensors(session.decoder)
    with together.whole():
        found = model_tensors(session.decoder)
        mine = lambda name: found[name].detach().clone()  # noqa: E731
        return dict(together.shared(mine, found))


def restore_parts(session: Session, path: Path) -> None:
    """Read the parts of weights, moments and average that this process holds; all call it.

    Raises:
        CheckpointError: it is of another model or optimizer, or cannot be read.
    """
    group, zero = session.group, session.together
    assert zero is not None
    with zero.whole(written=True):
        _restore_weights(session, path)
    moments = stored(path, OPTIMIZER)
    wholes = _wholes(moments)
    if isinstance(zero, Zero):
        zero.held.refresh_fp32_params()
        _require_used(path, wholes, session.stepper.optimizer.load_state(_Stored(moments, group)))
        return
    rooms = {name: _room(session, name, whole) for name, whole in wholes.items()}
    held = {name: room for name, room in rooms.items() if room is not None}
    read_into(held, moments, group)
    used = _take_moments(session, held)
    _require_used(path, wholes, set[str]().union(*group.every(lambda: used)))


def _restore_weights(session: Session, path: Path) -> None:
    own, weights = model_tensors(session.decoder), stored(path, MODEL)
    there = {
        name: torch.empty(each.shape, device="meta") for name, each in _wholes(weights).items()
    }
    if found := differences(own, {name: each for name, each in there.items() if name in own}):
        raise CheckpointError(
            f"The checkpoint {path} belongs to another model:\n  " + "\n  ".join(found),
            hint="Use the settings it was trained with; they lie beside it in config.yaml.",
        )
    read_into(own, weights, session.group)


def _require_used(path: Path, wholes: Mapping[str, Whole], used: set[str]) -> None:
    if left := sorted(set(wholes) - used):
        raise CheckpointError(
            f"The checkpoint {path} is of another optimizer: {left[0]} has no place in this run's.",
            hint="Resume with the settings the run was started with.",
        )


def held_parts(session: Session) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return what this process holds of weights, and of moments and average, to be put back."""
    average = session.stepper.average
    own = local if average is None else lambda part: local(part).clone()  # it is swapped back
    with session.stepper.averaged():
        weights = {name: own(each) for name, each in model_tensors(session.decoder).items()}
        return weights, {name: own(each) for name, each in kept_parts(session).items()}


def put_back(session: Session, weights: dict[str, Tensor], moments: dict[str, Tensor]) -> None:
    """Give a session that is divided as before what `held_parts` returned; all call it."""
    for name, each in model_tensors(session.decoder).items():
        local(each).copy_(weights[name])
    _take_moments(session, moments)


def _take_moments(session: Session, held: dict[str, Tensor]) -> set[str]:
    stepper, used = session.stepper, set[str]()
    if stepper.average is not None:
        used |= stepper.average.load({name: local(part) for name, part in held.items()})
    return used | stepper.optimizer.load_state(held)  # whose wholes are made of weights in training


class _Stored(Mapping[str, Tensor]):
    """Stored tensors, each read as a whole when it is asked for, by all processes at once."""

    def __init__(self, path: Path, group: Group) -> None:
        self._path, self._group, self._wholes = path, group, _wholes(path)

    def __getitem__(self, name: str) -> Tensor:
        whole = self._wholes[name]
        room = torch.empty(whole.shape, dtype=whole.dtype)
        read_into({name: room}, self._path, self._group)
        return room

    def __iter__(self) -> Iterator[str]:
        return iter(self._wholes)

    def __len__(self) -> int:
        return len(self._wholes)


def _wholes(path: Path) -> Mapping[str, Whole]:
    with open_tensors(path) as opened:
        return find_wholes(opened)


def _room(session: Session, key: str, whole: Whole) -> Tensor | None:
    """Return memory for what this process needs of a stored tensor; None: another needs it."""
    optimizer, trainable = session.stepper.optimizer, session.stepper.trainable
    assert isinstance(optimizer, SharedOptimizer)
    assert isinstance(trainable, DividedTrainable)
    name = parameter_of(key)
    averaged = key == trained_name(name)
    if not averaged and optimizer.is_elsewhere(name):
        return None
    of = next((each.tensor for each in trainable.whole if each.name == name), None)
    if of is None:
        return None
    if of.shape != whole.shape or not (averaged or optimizer.moves_parts(name)):
        return torch.empty(whole.shape, dtype=whole.dtype)
    return like(torch.empty_like(local(of), dtype=whole.dtype), of)
