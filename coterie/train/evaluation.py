"""Validation loss: mean nats per token over the whole split, in evaluation mode.

Every token of the split but its first is a target exactly once. Dropout is off, balance biases do
not move, random states are left as they were, so evaluating changes nothing in training.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from coterie.batch import IGNORE
from coterie.data import TokenArray, evaluation_batches
from coterie.foundation.errors import DataError
from coterie.model import Decoder
from coterie.train.precision import Precision
from coterie.train.randomness import set_aside


@dataclass(frozen=True)
class Evaluation:
    """Mean nats per token over `tokens` targets, and how long it took."""

    loss: float
    tokens: int
    seconds: float


def evaluate(
    decoder: Decoder, tokens: TokenArray, *, batch_size: int, precision: Precision
) -> Evaluation:
    """Measure a decoder on all tokens of a split; its mode is put back afterwards.

    Raises:
        DataError: the split has fewer than two tokens.
    """
    begin = time.perf_counter()
    training = decoder.training
    decoder.eval()
    total = torch.zeros((), dtype=torch.float64, device=_float64_device(precision))
    count = 0
    try:
        with set_aside(), torch.no_grad(), precision.autocast():
            for batch in evaluation_batches(tokens, decoder.settings.context, batch_size):
                output = decoder(
                    batch.tokens.to(precision.device), batch.targets.to(precision.device)
                )
                assert output.loss_sum is not None
                total += output.loss_sum.to(total.device, torch.float64)
                count += int((batch.targets != IGNORE).sum())  # on the CPU: no waiting
    finally:
        decoder.train(training)
    if count == 0:
        raise DataError(
            "The validation split has no token to predict.",
            hint="Raise data.valid_fraction, or give more text.",
        )
    return Evaluation(float(total) / count, count, time.perf_counter() - begin)


def _float64_device(precision: Precision) -> torch.device:
    """Return where to sum up: the device itself unless it has no float64."""
    return torch.device("cpu") if precision.device.type == "mps" else precision.device
