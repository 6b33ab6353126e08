"""The operations of a step, as MFU counts them."""

from __future__ import annotations

from coterie.model import count
from coterie.train.settings import RunSettings


def step_flops(settings: RunSettings) -> float:
    """Return the operations of one step: 6 per active parameter and token, plus attention's.

    This is what MFU counts. Recomputation and the optimizer are not in it.
    """
    per_token = count(settings.model).training_flops_per_token(settings.model.context)
    return float(per_token * settings.train.batch_size * settings.model.context)
