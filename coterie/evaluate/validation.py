"""The validation loss: mean nats per token over a whole split, and where its tokens were routed.

The trainer and `coterie evaluate` compute it here, in one pass. Measuring leaves no trace in the
model; a caller whose random streams matter sets them aside around it.
"""

import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from coterie.batch import TokenBatch
from coterie.evaluate.routing import LoadCounter, RoutingHealth
from coterie.foundation.errors import DataError
from coterie.generate.modes import evaluation
from coterie.model import Decoder
from coterie.model.context import ForwardContext
from coterie.parallel.together import Together

Autocast = Callable[[], contextlib.AbstractContextManager[object]]


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
    *,
    autocast: Autocast = contextlib.nullcontext,
    loads: LoadCounter | None = None,
    progress: Callable[[int], None] = lambda done: None,
    together: Together | None = None,
) -> Validation:
    """Measure a decoder on batches, usually those of `coterie.data.evaluation_batches`.

    Args:
        decoder: the model, in any mode, which it keeps.
        batches: on any device; ignored targets count neither in the loss nor in the load.
        autocast: makes the context that each forward pass runs in.
        loads: what counts the routing, of batches before as well; None: of these alone.
        progress: told the number of targets measured so far, after each batch.
        together: processes that measure other batches at the same time, as many each; what all of
            them found is added up.

    Raises:
        DataError: there is no token to predict.
    """
    started = time.perf_counter()
    device = next(decoder.parameters()).device
    summing = torch.device("cpu") if device.type == "mps" else device  # MPS has no float64
    nats = torch.zeros((), dtype=torch.float64, device=summing)
    loads, count = LoadCounter() if loads is None else loads, 0
    for batch in batches:
        on_device = batch.to(device)
        with evaluation(decoder, divided=together is not None), autocast():
            output = decoder(on_device.tokens, on_device.targets, ForwardContext.of(on_device))
            assert output.losses is not None
            nats = nats + output.losses.sum().to(summing, torch.float64)
        loads.add(output.router_stats)
        count += int(batch.valid.sum())  # of the batch as it came: no waiting for the device
        progress(count)
    if together is not None:
        together.fresh()
        found, _ = together.total([nats, torch.tensor(count), *loads.sums()], ())
        nats, count = found[0], int(found[1])
        loads.set_sums(found[2:])
    if count == 0:
        raise DataError(
            "There is no token to predict: the text is too short.",
            hint="Raise data.valid_fraction, or give more text.",
        )
    return Validation(float(nats) / count, count, time.perf_counter() - started, loads.health())
