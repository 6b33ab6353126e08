"""A step's gradients recorded as a CUDA graph: one launch instead of thousands.

The step of a small model is thousands of kernels of a few microseconds each; launched one by one
they wait for Python longer than they run. Recorded once for a batch's shape, forward and backward
pass of all micro-batches and the gradients' norm are repeated in one launch; clipping, optimizer
and balance go on as they are. Dropout draws what it would have drawn: a graph takes its random
numbers from where the generator stands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from coterie.batch import TokenBatch
from coterie.generate.passes.recorded import Record, cuda_graph
from coterie.train.metrics import StepMetrics
from coterie.train.randomness import set_aside

Gradients = Callable[[TokenBatch], StepMetrics]
"""Computes the gradients of a batch, which it finds forgotten, and returns what they add up to."""


@dataclass(frozen=True)
class _Recording:
    """What a step reads and writes, all of it at fixed places."""

    batch: TokenBatch
    replay: Callable[[], None]
    results: _Results


@dataclass
class _Results:
    gradients: list[Tensor | None]
    metrics: StepMetrics
    norm: Tensor


class RecordedGradients:
    """Repeats the passes of a step for batches of one shape; another shape is recorded anew.

    Args:
        parameters: whose gradients are computed.
        compute: computes them, for one batch.
        forget: drops gradients and what balances observed.
        tell: told in a sentence why passes cannot be recorded, where that is so.
        record: how passes are recorded.

    Attributes:
        refused: whether they cannot be.
    """

    def __init__(
        self,
        parameters: list[torch.nn.Parameter],
        compute: Gradients,
        forget: Callable[[], None],
        tell: Callable[[str], None],
        record: Record = cuda_graph,
    ) -> None:
        self._parameters = parameters
        self._compute, self._forget = compute, forget
        self._tell, self._record = tell, record
        self._recording: _Recording | None = None
        self.refused = False

    def __call__(self, batch: TokenBatch) -> tuple[StepMetrics, Tensor] | None:
        """Leave the gradients at the parameters; return what they add up to, and their norm.

        None: the passes cannot be recorded, which is told once; nothing was changed.

        Raises:
            torch.OutOfMemoryError: they do not fit into memory; nothing was changed.
        """
        found = self._recording
        if self.refused:
            return None
        if found is None or _shape(found.batch) != _shape(batch):
            found = self._recording = None  # gives its memory back first
            try:
                found = self._recording = self._recorded(batch)
            except torch.OutOfMemoryError:
                raise  # in smaller pieces it may be
            except RuntimeError as error:
                self.refused = True
                # Leaving the recording fails as well, which says less than what broke it off.
                reason = str(error.__context__ or error).partition("\n")[0]
                self._tell(f"Steps run kernel by kernel, for they cannot be recorded: {reason}")
                return None
        held = _tensors(found.batch)
        for name, given in _tensors(batch).items():
            held[name].copy_(given)
        found.replay()
        results = found.results
        for parameter, gradient in zip(self._parameters, results.gradients, strict=True):
            parameter.grad = gradient
        return _kept(results.metrics), results.norm

    def renew(self) -> None:
        """Record anew at the next call: the batch is cut otherwise from then on."""
        self._recording = None

    def _recorded(self, batch: TokenBatch) -> _Recording:
        static = type(batch)(**{name: each.clone() for name, each in _tensors(batch).items()})
        results = _Results([], StepMetrics(), torch.empty(0))

        def step() -> None:
            results.gradients = []  # or those of two times are held
            self._forget()
            results.metrics = self._compute(static)
            results.gradients = gradients = [parameter.grad for parameter in self._parameters]
            results.norm = get_total_norm([each for each in gradients if each is not None])

        try:
            with set_aside():
                replay = self._record(step)
        finally:
            self._forget()
        return _Recording(static, replay, results)


def _tensors(batch: TokenBatch) -> dict[str, Tensor]:
    values = ((field.name, getattr(batch, field.name)) for field in fields(batch))
    return {name: each for name, each in values if each is not None}


def _shape(batch: TokenBatch) -> dict[str, torch.Size]:
    return {name: each.shape for name, each in _tensors(batch).items()}


def _kept(metrics: StepMetrics) -> StepMetrics:
    """Return the values of this step: the next one writes at the same places."""

    def copied(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: copied(each) for key, each in value.items()}
        return value.clone() if isinstance(value, Tensor) else value

    return StepMetrics(
        **{each.name: copied(getattr(metrics, each.name)) for each in fields(metrics)}
    )
