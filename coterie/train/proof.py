"""Proof that a run resumes to the bit, on the machine and with the settings it has.

From the newest checkpoint steps are taken twice: without a break, and with a checkpoint written,
read and gone on from half way, in a session opened anew. Both must end in the same weights,
moments, biases, random states, losses. The run itself is only read.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coterie.checkpoint import find_checkpoint, load_checkpoint, step_of
from coterie.foundation.layers import file_layer, load_settings
from coterie.foundation.runs import RunDirectory
from coterie.train.choices import kept_choices
from coterie.train.machine import computing_threads
from coterie.train.method import Method
from coterie.train.randomness import random_state
from coterie.train.resume import require_trainable, restore_session, save_session
from coterie.train.session import Session, open_session
from coterie.train.settings import RunSettings

Tell = Callable[[str], None]
MethodOf = Callable[[RunSettings, RunDirectory], Method | None]


def _silent(said: str) -> None: ...


def _pretrained(settings: RunSettings, run: RunDirectory) -> Method | None: ...


@dataclass(frozen=True)
class ResumeProof:
    """What became of the steps with a break, beside those without.

    Attributes:
        checkpoint: where both began.
        step, steps: where that was, and how many were taken, each time.
        tensors: compared: weights, buffers, moments, average.
        unequal: the names of those that differ; apart: how far the furthest value is off.
        others: what else differs: losses, random states, clip history, loss scale.
    """

    checkpoint: Path
    step: int
    steps: int
    device: str
    precision: str
    tensors: int
    unequal: tuple[str, ...]
    apart: float
    others: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether nothing differs, not by a bit."""
        return not self.unequal and not self.others


def prove_resume(
    run: RunDirectory, steps: int = 10, tell: Tell = _silent, methods: MethodOf = _pretrained
) -> ResumeProof:
    """Take steps from a run's newest sound checkpoint with and without a break, and compare.

    Args:
        run: has a checkpoint of a training.
        steps: to take, at least 2; the break comes half way.
        tell: told in a sentence what takes long.
        methods: returns the method of a run; None: text, from drawn weights.

    Raises:
        UserError: data, settings or checkpoints cannot be used.
        TrainingError: a gradient was not finite.
    """
    assert steps >= 2
    require_trainable(run)
    settings = load_settings(RunSettings, [file_layer(run.config)]).settings
    checkpoint = find_checkpoint(run)
    # A run that is done goes on for a little.
    last = max(settings.train.steps, step_of(checkpoint) + steps)
    train = settings.train.model_copy(update={"steps": last, "epochs": None})
    settings = settings.model_copy(update={"train": train, "parallel": None})  # here: one process

    method = methods(settings, run)

    def opened(path: Path, scratch: RunDirectory) -> Session:
        session = open_session(settings, scratch, tell, kept_choices(run), method)
        restore_session(session, load_checkpoint(path, verify=False))
        return session

    with tempfile.TemporaryDirectory() as folder, computing_threads(settings.train.threads):
        scratch = RunDirectory.create(Path(folder), "proof")
        straight = opened(checkpoint, scratch)
        begin, precision = straight.progress.step, straight.precision
        tell(f"Taking {steps} steps from step {begin:,} without a break.")
        losses = _take(straight, steps)
        tensors, rest = _state(straight)
        del straight
        broken = opened(checkpoint, scratch)
        tell(f"Taking {steps // 2}, writing a checkpoint, and going on from it in a new session.")
        again = _take(broken, steps // 2)
        half = save_session(broken)
        del broken
        resumed = opened(half, scratch)
        again += _take(resumed, steps - steps // 2)
        other_tensors, other_rest = _state(resumed)
    both = rest | {"losses": losses}, other_rest | {"losses": again}
    unequal = [name for name in tensors if not torch.equal(tensors[name], other_tensors[name])]
    return ResumeProof(
        checkpoint=checkpoint,
        step=begin,
        steps=steps,
        device=str(precision.device),
        precision=precision.name,
        tensors=len(tensors),
        unequal=tuple(unequal),
        apart=max((_apart(tensors[name], other_tensors[name]) for name in unequal), default=0.0),
        others=tuple(name for name in both[0] if both[0][name] != both[1][name]),
    )


def _take(session: Session, steps: int) -> list[float]:
    """Take steps as training does; return their losses."""
    losses = []
    with session.loader() as loader:
        batches = loader.iterate(session.progress.step)
        for _ in range(steps):
            step = session.progress.step
            result, tokens = session.stepper(step, next(batches)), session.stages.of(step).tokens
            session.progress.advance(tokens=tokens, seconds=0.0, loss=result.loss)
            losses.append(result.loss)
    return losses


def _state(session: Session) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a copy of all tensors that training moves, and the rest of its state."""
    stepper = session.stepper
    tensors = dict(_copies("", session.decoder.state_dict()))
    tensors |= _copies("optimizer.", stepper.optimizer.state())
    tensors |= _copies("", stepper.trainable.kept())
    with stepper.averaged():
        if stepper.average is not None:
            tensors |= _copies("average.", session.decoder.state_dict())
    scale = stepper.loss_scale
    return tensors, {
        "random states": random_state(),
        "clip history": stepper.clipper.state(),
        "loss scale": None if scale is None else scale.state(),
    }


def _copies(prefix: str, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in tensors.items():
        yield prefix + name, tensor.detach().to("cpu", copy=True)


def _apart(one: Tensor, other: Tensor) -> float:
    if one.shape != other.shape:
        return float("inf")
    return float((one.double() - other.double()).abs().max()) if one.numel() else 0.0
