"""What a training step would hold, counted on a step without memory (`train/sketch.py`).

The step is the run's own: its decoder, objective, optimizer, clipping and precision. Of a decoder
with many layers two smaller ones of the same pattern are counted, and what a further period of
layers adds is added: the peaks of the forward pass, of the gradient's way through the first and the
last layers, and of the update are each linear in the number of layers, and what lies between the
two is linear too, so less than one of them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from coterie.batch import TokenBatch
from coterie.model import Decoder
from coterie.train.average import WeightAverage
from coterie.train.live_memory import UPDATE, Bytes, LiveMemory
from coterie.train.objective import Models
from coterie.train.offload import build_optimizer
from coterie.train.precision import Precision
from coterie.train.roles import role_parameters
from coterie.train.settings import RunSettings
from coterie.train.sketch import without_memory
from coterie.train.step import Stepper

_COUNTED = 2  # periods of the pattern in the smaller of two decoders
_TOKENS = 1 << 21  # most that are counted at once
_OF_PARAMETERS = {"weights", "gradients", "optimizer", "average"}
_BETWEEN = "between the first and the last layers"


def step_memory(settings: RunSettings, precision: Precision) -> Bytes:
    """Return the bytes that are alive when most are, in any step but the first, by part.

    Args:
        settings: the run, its vocabulary's size known.
        precision: the type of its products.
    """
    return largest(step_phases(settings, precision))


def step_phases(settings: RunSettings, precision: Precision) -> dict[str, Bytes]:
    """Return the bytes that are alive at the peak of each phase of a step, by part."""
    model = settings.model
    period, opening = len(model.pattern) or 1, len(model.opening)
    small = opening + (model.layers - opening) % period + _COUNTED * period
    if model.layers <= small + period:
        return _phases(settings, precision, model.layers)
    less, more = (_phases(settings, precision, layers) for layers in (small, small + period))
    times = (model.layers - small) / period
    return {
        phase: {
            part: round(less[phase].get(part, 0) * (1 - times) + more[phase].get(part, 0) * times)
            for part in {**less[phase], **more[phase]}
        }
        for phase in more
        if phase != _BETWEEN
    }


def largest(phases: Mapping[str, Bytes]) -> Bytes:
    """Return the phase in which most is alive."""
    found = max(phases.values(), key=lambda each: sum(each.values()))
    return {part: size for part, size in found.items() if size > 0}


def _phases(settings: RunSettings, precision: Precision, layers: int) -> dict[str, Bytes]:
    """Return what is alive at the peak of each phase, of a decoder of so many layers."""
    train = settings.train
    tags = (each.with_ids(dict.fromkeys(each.tags().values(), 0))
            for each in settings.model.additive)  # fmt: skip
    model = settings.model.model_copy(
        update={"layers": layers, "ngram": None, "additive": tuple(tags)}
    )
    accumulated = min(train.gradient_accumulation, 2)  # the second piece meets all gradients
    # Whole numbers are real, so of more rows than these the rest is added in proportion.
    length = settings.row_length
    most = max(1, _TOKENS // length)
    times = max(1.0, train.micro_batch_size / most)
    rows = accumulated * min(train.micro_batch_size, most)
    changes = {"gradient_accumulation": accumulated, "batch_size": rows, "health_every": 0}
    pieces = train.model_copy(update=changes)
    with torch.device("meta"):
        decoder = Decoder(model).train()
    decoder = without_memory(decoder, precision.device)
    decoder.activation_checkpointing = train.activation_checkpointing
    parameters = role_parameters(decoder)
    stepper = Stepper(
        decoder, Models(decoder), train.objective.build(model),
        build_optimizer(train, parameters), train.clip.build(), precision, pieces,
    )  # fmt: skip
    if train.ema is not None:
        stepper.average = WeightAverage(parameters, train.ema)
    tokens = torch.zeros(2, rows, length, dtype=torch.int64, device=precision.device)
    live, period = LiveMemory(precision.device.type), len(model.pattern) or 1
    starts = {layers - 1: "last layers", layers - 1 - period: _BETWEEN,
              len(model.opening) + period - 1: "first layers"}  # fmt: skip
    with live.watching(stepper, phases={at: name for at, name in starts.items() if at >= 0}):
        live.hold(tokens, "batches")
        stepper(0, TokenBatch(*tokens.unbind()))
    held = 0 if train.offload.optimizer else train.optimizer.state_bytes(parameters)
    for phase, peak in live.peaks.items():
        for part in set(peak) - _OF_PARAMETERS:
            peak[part] = round(peak[part] * times)
        if phase != UPDATE:  # whose peak has the moments that it made
            peak["optimizer"] = held
        peak["batches"] = 2 * 8 * train.batch_size * length  # tokens and targets
    return live.peaks
