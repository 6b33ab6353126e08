"""Steps become events: losses, rates, speed and the load per expert.

Values leave the device only for steps that are recorded. Speed counts the time of training steps
alone: evaluating, sampling and saving are not in it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from coterie.model import Decoder, selection_biases
from coterie.parallel.ranks import ALONE, Ranks
from coterie.parallel.waiting import Waiting, straggler
from coterie.train.events import (
    LayerLoad,
    LoadMeasured,
    MicroBatchChanged,
    PartsMeasured,
    RankMeasured,
    RanksMeasured,
    StepDone,
)
from coterie.train.metrics import StepMetrics
from coterie.train.monitor.publish import Publisher
from coterie.train.progress import Progress
from coterie.train.step import StepResult

try:
    import resource
except ImportError:  # Windows has none; memory is then left out there
    resource = None


class StepReporter:
    """Publishes every `log_every`-th step and the load summed over every `load_every` steps.

    Args:
        publish: where events go.
        decoder: asked for its selection biases when loads are recorded.
        flops_of: operations of a step, by its number: forward and backward, active parameters.
        peak_flops: the measured ceiling, FLOP/s; None leaves MFU out.
        log_every: steps between recorded steps.
        load_every: steps between recorded loads.
        begun: how far the run had come before, in earlier sessions.
        sources: the names of mixed sources.
        ranks: the processes that take each step; all of them report.
    """

    def __init__(
        self,
        publish: Publisher,
        decoder: Decoder,
        *,
        flops_of: Callable[[int], float],
        peak_flops: float | None,
        log_every: int,
        load_every: int,
        begun: Progress,
        sources: Sequence[str] = (),
        ranks: Ranks = ALONE,
    ) -> None:
        self._publish = publish
        self._ranks, self._waiting = ranks, Waiting(ranks, lambda said: publish.record(said))
        self._asked = replace(begun)  # how far the run was when the processes were last asked
        self.decoder = decoder
        self._device = next(decoder.parameters()).device
        self._flops_of = flops_of
        self._peak_flops = peak_flops
        self._log_every = log_every
        self._load_every = load_every
        self._steps_since, self._flops_since, self._before = 0, 0.0, replace(begun)
        self._padding_since = 0
        self._loads = _Loads()
        self._sources = sources
        self._cut: tuple[int, int] | None = None
        self._pressure: float | None = None

    def __enter__(self) -> StepReporter:
        self._waiting.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._waiting.__exit__()

    def step_done(
        self, progress: Progress, result: StepResult, *, last: bool, padding: int = 0
    ) -> None:
        """Take note of the step that `progress` has just come to.

        Args:
            padding: places of the step that held no token.
        """
        self._padding_since += padding
        if self._cut not in (None, (result.pieces, result.rows)):
            self._publish(
                MicroBatchChanged(
                    step=progress.step,
                    pieces=result.pieces,
                    rows=result.rows,
                    pressure=self._pressure,
                )
            )
        self._cut, self._pressure = (result.pieces, result.rows), result.pressure
        self._steps_since += 1
        self._flops_since += self._flops_of(progress.step - 1)
        if result.moved:
            self._loads.add(result.metrics)
        if progress.step % self._log_every == 0 or last:
            self._publish(self._record(progress, result))
            self._steps_since, self._flops_since, self._before = 0, 0.0, replace(progress)
            self._padding_since = 0
        if self._ranks.world > 1 and (progress.step % self._load_every == 0 or last):
            self._publish(self._every_rank(progress))
        if result.parts is not None:
            self._publish(PartsMeasured(step=progress.step, parts=result.parts))
        if self._loads.steps and (progress.step % self._load_every == 0 or last):
            self._publish(self._loads.take(progress.step, selection_biases(self.decoder)))

    def _every_rank(self, progress: Progress) -> RanksMeasured:
        """Return what the processes came to; all of them call it."""
        steps = progress.step - self._asked.step
        own = RankMeasured(
            rank=self._ranks.rank,
            seconds=(progress.train_seconds - self._asked.train_seconds) / max(steps, 1),
            memory_bytes=peak_memory_bytes(self._device),
            waiting=self._waiting.take() if self._device.type == "cpu" else None,
        )
        self._asked = replace(progress)
        told = self._ranks.gather(own)
        return RanksMeasured(
            step=progress.step, steps=steps, ranks=tuple(told),
            straggler=straggler([each.waiting for each in told]),
        )  # fmt: skip

    def _record(self, progress: Progress, result: StepResult) -> StepDone:
        seconds = progress.train_seconds - self._before.train_seconds
        rate = 1.0 / max(seconds, 1e-9)
        assert progress.loss is not None
        return StepDone(
            step=progress.step,
            loss=progress.loss,
            learning_rate=result.learning_rate,
            gradient_norm=result.gradient_norm,
            tokens=progress.tokens,
            seconds=seconds / self._steps_since,
            tokens_per_second=rate * (progress.tokens - self._before.tokens - self._padding_since),
            mfu=self._peak_flops and self._flops_since * rate / self._peak_flops,
            memory_bytes=peak_memory_bytes(self._device),
            auxiliary={name: float(term) for name, term in result.metrics.auxiliary.items()},
            sources=loss_by_source(result.metrics.rows, self._sources) or None,
        )


def loss_by_source(rows: Tensor | None, names: Sequence[str]) -> dict[str, float]:
    """Return the mean loss of each source that a step read, nats per token.

    Args:
        rows: [3, N] the source of each row, its loss added up, the weight of its targets.
        names: of the sources.
    """
    if rows is None:
        return {}
    source, losses, weights = rows.cpu().double()
    total = torch.zeros(2, len(names), dtype=torch.float64)
    total.index_add_(1, source.long(), torch.stack([losses, weights]))
    found = zip(names, *total.tolist(), strict=True)
    return {name: loss / weight for name, loss, weight in found if weight > 0}


class _Loads:
    """Loads per layer and expert, summed over steps, on the device."""

    def __init__(self) -> None:
        self.steps = 0
        self._loads: dict[int, Tensor] = {}
        self._dropped: dict[int, Tensor | int] = {}
        self._entropies: dict[int, Tensor] = {}

    def add(self, metrics: StepMetrics) -> None:
        """Add the loads of one step."""
        if not metrics.loads:
            return
        self.steps += 1
        for layer, load in metrics.loads.items():
            self._loads[layer] = load + self._loads.get(layer, 0)
            self._dropped[layer] = metrics.dropped[layer] + self._dropped.get(layer, 0)
        for layer, entropy in metrics.entropies.items():
            self._entropies[layer] = entropy + self._entropies.get(layer, 0)

    def take(self, step: int, biases: dict[int, Tensor]) -> LoadMeasured:
        """Return the sums as an event and begin again."""
        layers = tuple(
            LayerLoad(
                layer=layer,
                load=tuple(load.tolist()),
                dropped=int(self._dropped[layer]),
                bias=tuple(biases[layer].tolist()) if layer in biases else None,
                entropy=_quotient(self._entropies.get(layer)),
            )
            for layer, load in sorted(self._loads.items())
        )
        event = LoadMeasured(step=step, steps=self.steps, layers=layers)
        self.steps, self._loads, self._dropped, self._entropies = 0, {}, {}, {}
        return event


def _quotient(summed: Tensor | None) -> float | None:
    """Return the entropy of a token in the mean; None: it was not measured, or of no token."""
    total, tokens = (0.0, 0.0) if summed is None else summed.tolist()
    return total / tokens if tokens else None


def peak_memory_bytes(device: torch.device) -> int | None:
    """Return the most memory held so far: by tensors on a GPU, by the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
