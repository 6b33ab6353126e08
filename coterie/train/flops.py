"""The operations of a step, as MFU counts them."""

from __future__ import annotations

from coterie.data.curriculum import Stage
from coterie.model import count
from coterie.train.settings import RunSettings


def step_flops(settings: RunSettings, stage: Stage | None = None) -> float:
    """Return the operations of a step: 6 per active parameter and token, plus attention's.

    Of a step at full length, or of those of a stage. This is what MFU counts. Recomputation and the
    optimizer are not in it.
    """
    stage = stage or Stage(0, settings.row_length, settings.train.batch_size)
    per_token = count(settings.model).training_flops_per_token(stage.context)
    return float(per_token * stage.tokens)


def recomputing(settings: RunSettings) -> float:
    """Return what computing every block a second time adds, as a share of a step's operations."""
    model = settings.model
    blocks = [*model.plans(), *[model.mtp_plan()] * (0 if model.mtp is None else model.mtp.depth)]
    again = sum(plan.counts("", model.width, model.context).flops for plan in blocks)
    return float(again / count(model).training_flops_per_token(model.context))
