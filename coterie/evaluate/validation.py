"""A run's own validation part: the loss over all of it, and where its tokens were routed.

One pass gives both. The loss is the one that training reports: mean nats per token, every token of
the split but its first a target exactly once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from coterie.batch import TokenBatch
from coterie.evaluate.routing import LoadCounter, RoutingHealth
from coterie.foundation.errors import DataError
from coterie.generate.reading import evaluation
from coterie.model import Decoder


@dataclass(frozen=True)
class Validation:
    """Mean nats per token over `tokens` targets, and the routing of each layer that routes."""

    loss: float
    tokens: int
    seconds: float
    routing: tuple[RoutingHealth, ...]


def validate(
    decoder: Decoder,
    batches: Iterable[TokenBatch],
    progress: Callable[[int], None] | None = None,
) -> Validation:
    """Measure a decoder on batches, usually those of `coterie.data.evaluation_batches`.

    Args:
        decoder: the model, in any mode, which it keeps.
        batches: what to read; ignored targets count neither in the loss nor in the load.
        progress: told the number of targets measured so far, after each batch.

    Raises:
        DataError: there is no token to predict.
    """
    started = time.perf_counter()
    device = next(decoder.parameters()).device
    loads = LoadCounter()
    nats, count = 0.0, 0
    for batch in batches:
        with evaluation(decoder):
            output = decoder(batch.tokens.to(device), batch.targets.to(device))
        assert output.loss_sum is not None
        nats += float(output.loss_sum.double() if device.type != "mps" else output.loss_sum)
        count += int(output.valid_tokens)
        loads.add(output.routing)
        if progress is not None:
            progress(count)
    if count == 0:
        raise DataError("There is no token to predict: the text is too short.")
    return Validation(nats / count, count, time.perf_counter() - started, loads.health())
